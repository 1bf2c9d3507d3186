#pragma once

#include <string>

#include "apps/training_options.hpp"
#include "models/quicksilver_file.hpp"
#include "models/quicksilver_training.hpp"

namespace cinnabar::apps {

// The options of `cinnabar train quicksilver`.

struct QuicksilverArguments : TrainingArguments {
  std::string momenta, initial, prediction;
  std::string places = "grid", loss = "momentum";
  std::string similarity;  ///< of the energy; empty: that of the momenta
  DType storage = DType::f32;
  std::int64_t patch = 15;
  std::int64_t stride = 0;  ///< 0: a voxel less than the patch
  std::int64_t batch = 0;   ///< 0: 64 patches or 1 pair
  bool correction = false, skip_missing = false, swap = false;
  double smoothing_voxels = 0.0;
  QuicksilverOptions network;
  QuicksilverTrainingOptions training;
};

void add_quicksilver_options(CLI::App& command, QuicksilverArguments& arguments);
/// Fills in what follows from other options.
void complete(QuicksilverArguments& arguments);
/// Throws InputError where options do not go together, or not with the model of the momenta.
void require_consistent(const QuicksilverArguments& arguments, const MomentumModel& model);

/// Whether the loss is the energy of whole pairs, not the distance of momenta of patches.
bool by_energy(const QuicksilverArguments& arguments);

}  // namespace cinnabar::apps
