#include "apps/train_quicksilver_options.hpp"

#include "apps/network_options.hpp"
#include "apps/number_checks.hpp"
#include "apps/similarity_options.hpp"
#include "registration/output_file.hpp"
#include "registration/outputs.hpp"

namespace cinnabar::apps {

namespace {

void add_data_options(CLI::App& command, QuicksilverArguments& arguments) {
  QuicksilverPatchOptions& patches = arguments.training.patches;
  command.add_option("--momenta", arguments.momenta, "folder that cinnabar momenta made")->required();
  command.add_option("--pairs", arguments.pairs,
                     "list of pairs to use (.csv); without it all that are finished in the folder");
  command.add_flag("--skip-missing", arguments.skip_missing, "leave out pairs without a finished momentum");
  add_validation_options(command, arguments);
  command
      .add_option("--batch", arguments.batch,
                  "patches in a batch (default: 64), or pairs with --loss energy (default: 1)")
      ->check(kPositive);
  command.add_option("--patch", arguments.patch, "extent of a patch in voxels")
      ->check(CLI::Range(std::int64_t{3}, kMaxQuicksilverPatch))
      ->capture_default_str();
  command
      .add_option("--stride", arguments.stride,
                  "distance of patches in voxels (default: one less than --patch)")
      ->check(kPositive);
  command.add_option("--places", arguments.places, "where patches lie: on the grid, or anywhere")
      ->check(CLI::IsMember({"grid", "anywhere"}))
      ->capture_default_str();
  command.add_flag("--mirror", patches.mirror,
                   "exchange left and right of every other patch or pair, by chance");
  command.add_flag("--swap", arguments.swap, "exchange moving and fixed of every other pair, by chance");
  command
      .add_option("--smooth-momenta", arguments.smoothing_voxels,
                  "learn momenta smoothed by a Gaussian of so many voxels")
      ->check(number_in(0.0, 10.0))
      ->capture_default_str();
  command
      .add_option("--intensity", patches.intensity,
                  "how much intensities vary by chance: gamma in 1 +- this, and noise")
      ->check(number_in(0.0, 0.9))
      ->capture_default_str();
}

void add_optimiser_options(CLI::App& command, QuicksilverArguments& arguments) {
  QuicksilverTrainingOptions& training = arguments.training;
  command.add_option("--features", arguments.network.features, "channels of the network's first block")
      ->check(kPositive)
      ->capture_default_str();
  command.add_option("--dropout", arguments.network.dropout, "0.2 makes the probabilistic network")
      ->check(number_in(0.0, 0.9))
      ->capture_default_str();
  command.add_flag("--correction", arguments.correction,
                   "train a correction network, on what the one named by --network leaves");
  command.add_option("--network", arguments.prediction, "prediction network to correct (.safetensors)");
  command.add_option("--initial", arguments.initial, "network whose weights to start from");
  command.add_option("--epochs", training.epochs, "as many patches as the grids have places are an epoch")
      ->check(kPositive)
      ->capture_default_str();
  command
      .add_option(
          "--loss", arguments.loss,
          "momentum: distance to the momenta of the folder, patch by patch; energy: that of matching, "
          "of whole pairs shot with the momenta predicted")
      ->check(CLI::IsMember({"momentum", "energy"}))
      ->capture_default_str();
  add_similarity(command, "--similarity", arguments.similarity,
                 "of the energy (default: that of the momenta)");
  command
      .add_option("--velocity-loss", training.loss.velocity,
                  "weight of the squared error of the velocities that momenta make, beside either loss")
      ->check(kNonNegative)
      ->capture_default_str();
  add_rate_options(command, arguments, training);
  command.add_option("--seed", arguments.network.seed, "of weights, patches, augmentation and dropout")
      ->capture_default_str();
}

}  // namespace

bool by_energy(const QuicksilverArguments& arguments) {
  return arguments.loss == "energy";
}

void require_consistent(const QuicksilverArguments& arguments, const MomentumModel& model) {
  if (by_energy(arguments)) {
    if (model.sigma <= 0.0) fail_input(arguments.momenta, ": its model has no sigma, which the energy needs");
    if (arguments.smoothing_voxels > 0.0 || arguments.training.patches.intensity > 0.0 ||
        arguments.places != "grid") {
      fail_input("--smooth-momenta, --intensity and --places are for --loss momentum");
    }
    if (arguments.swap && arguments.training.loss.velocity > 0.0) {
      fail_input("--swap and --velocity-loss exclude each other: exchanged pairs have no momenta");
    }
  } else if (arguments.swap || !arguments.similarity.empty()) {
    fail_input("--swap and --similarity are for --loss energy");
  }
  if (arguments.correction == arguments.prediction.empty()) {
    fail_input("--correction and --network go together: the prediction network that is to be corrected");
  }
  registration::require_writable_prefix(arguments.output);
}

void add_quicksilver_options(CLI::App& command, QuicksilverArguments& arguments) {
  add_data_options(command, arguments);
  add_optimiser_options(command, arguments);
  add_run_options(command, arguments);
  add_storage_option(command, arguments.storage);
  add_precision_option(command, arguments.network.precision);
}

void complete(QuicksilverArguments& arguments) {
  arguments.network.patch = {arguments.patch, arguments.patch, arguments.patch};
  if (arguments.stride == 0) arguments.stride = arguments.patch - 1;
  if (arguments.batch == 0) arguments.batch = by_energy(arguments) ? 1 : 64;
}

}  // namespace cinnabar::apps
