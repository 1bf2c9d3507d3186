// cinnabar train: trains networks, one subcommand each.

#include "apps/commands.hpp"

namespace cinnabar::apps {

void add_train(CLI::App& app) {
  CLI::App& train = *app.add_subcommand("train", "Train a network");
  train.require_subcommand(1);
  add_train_quicksilver(train);
  add_train_voxelmorph(train);
  add_train_stn(train);
  add_train_coords(train);
  add_train_siamese(train);
}

}  // namespace cinnabar::apps
