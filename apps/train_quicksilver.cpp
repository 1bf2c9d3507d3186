// cinnabar train quicksilver: from a folder of momenta, or of pairs alone, to a network.

#include <fmt/core.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/commands.hpp"
#include "apps/device_choice.hpp"
#include "apps/interrupt.hpp"
#include "apps/network_options.hpp"
#include "apps/training_options.hpp"
#include "apps/training_progress.hpp"
#include "models/quicksilver_energy_training.hpp"
#include "models/quicksilver_file.hpp"
#include "models/quicksilver_training.hpp"
#include "models/voxelmorph_file.hpp"
#include "registration/correction_pairs.hpp"
#include "registration/momenta.hpp"
#include "registration/output_file.hpp"
#include "registration/outputs.hpp"
#include "registration/training_pairs.hpp"
#include "registration/training_run.hpp"

namespace cinnabar::apps {

namespace {

using namespace registration;

struct QuicksilverArguments : TrainingArguments {
  std::string momenta, initial, prediction;
  std::string places = "grid", loss = "momentum", similarity = "ssd";
  DType storage = DType::f32;
  std::int64_t patch = 15;
  std::int64_t stride = 0;  ///< 0: a voxel less than the patch
  std::int64_t batch = 0;   ///< 0: 64 patches or 1 pair
  bool correction = false, skip_missing = false, swap = false;
  double smoothing_voxels = 0.0;
  QuicksilverOptions network;
  QuicksilverTrainingOptions training;
};

constexpr const char* kKind = "quicksilver";

bool by_energy(const QuicksilverArguments& arguments) {
  return arguments.loss == "energy";
}

QuicksilverTrainingOptions resolve(const QuicksilverArguments& arguments, const MomentumModel& model) {
  QuicksilverTrainingOptions options = arguments.training;
  options.loss.fluid = model.fluid;
  options.patches.batch_size = arguments.batch;
  options.patches.grid.patch = arguments.network.patch;
  options.patches.grid.stride = {arguments.stride, arguments.stride, arguments.stride};
  options.patches.places = arguments.places == "anywhere" ? PatchPlaces::anywhere : PatchPlaces::grid;
  options.patches.seed = arguments.network.seed;
  options.schedule = schedule_of(arguments);
  return options;
}

QuicksilverEnergyOptions resolve_energy(const QuicksilverArguments& arguments, const MomentumModel& model) {
  QuicksilverEnergyOptions options;
  static_cast<TrainingOptions&>(options) = arguments.training;
  options.schedule = schedule_of(arguments);
  options.matching.shooting = model.shooting();
  options.matching.sigma = model.sigma;
  options.matching.similarity = similarity_named(arguments.similarity);
  options.velocity = arguments.training.loss.velocity;
  options.stride = arguments.stride;
  options.batch_size = arguments.batch;
  options.draws = {arguments.swap, arguments.training.patches.mirror, arguments.network.seed};
  return options;
}

/// What a checkpoint keeps of the command: all that changes the weights.
std::map<std::string, std::string> options_of(const QuicksilverArguments& arguments,
                                              const MomentumModel& model) {
  const QuicksilverTrainingOptions& training = arguments.training;
  const QuicksilverPatchOptions& patches = training.patches;
  const Conv3dPrecision precision = arguments.network.precision;
  return {
      {"--features", fmt::format("{}", arguments.network.features)},
      {"--dropout", fmt::format("{}", arguments.network.dropout)},
      {"--seed", fmt::format("{}", arguments.network.seed)},
      // Checkpoints of before there was a choice say nothing.
      {"--precision", precision == Conv3dPrecision::fp32 ? "" : std::string(name_of(precision))},
      {"--initial", arguments.initial.empty() ? "" : checksum(arguments.initial)},
      // Nor of before there was another loss.
      {"--loss", by_energy(arguments) ? arguments.loss : ""},
      {"--similarity", by_energy(arguments) ? arguments.similarity : ""},
      {"--swap", arguments.swap ? "on" : ""},
      {"--correction", arguments.correction ? "on" : "off"},
      {"--network", arguments.correction ? checksum(arguments.prediction) : ""},
      {"--epochs", fmt::format("{}", training.epochs)},
      {"--batch", fmt::format("{}", arguments.batch)},
      {"--learning-rate", fmt::format("{}", training.learning_rate)},
      {"--schedule", arguments.schedule},
      {"--moving-average", fmt::format("{}", training.moving_average)},
      {"--patch", fmt::format("{}", arguments.patch)},
      {"--stride", fmt::format("{}", arguments.stride)},
      {"--places", arguments.places},
      {"--mirror", patches.mirror ? "on" : "off"},
      {"--intensity", fmt::format("{}", patches.intensity)},
      {"--smooth-momenta", fmt::format("{}", arguments.smoothing_voxels)},
      {"--velocity-loss", fmt::format("{}", training.loss.velocity)},
      {"--validation-steps", fmt::format("{}", training.validation_steps)},
      {"--validation", arguments.validation ? fmt::format("{}", *arguments.validation) : ""},
      {"--validation-pairs", arguments.validation_pairs.empty() ? "" : checksum(arguments.validation_pairs)},
      {"the model in momenta.json", to_json(model).dump()}};
}

/// The pairs to train and validate on: those of the checkpoint where there is one, whatever was finished
/// since, unless a list says exactly which.
TrainingSplit choose_pairs(const QuicksilverArguments& arguments,
                           const std::optional<TrainingCheckpoint>& checkpoint) {
  const std::vector<TrainingPair> pairs =
      arguments.pairs.empty() ? finished_pairs(arguments.momenta)
                              : finished_pairs(arguments.momenta, arguments.pairs, arguments.skip_missing);
  if (!checkpoint) return split_pairs(pairs, arguments, arguments.network.seed);
  const TrainingSettings& before = checkpoint->settings;
  if (!arguments.pairs.empty() && !arguments.skip_missing) {
    require_same_pairs(split_pairs(pairs, arguments, arguments.network.seed), before, arguments);
  }
  return split_as_before(pairs, before.training, before.validation);
}

void take_initial_weights(Quicksilver& network, const std::string& path) {
  const LoadedQuicksilver initial = load_quicksilver(path);
  const std::int64_t features = initial.description.network.features;
  if (features != network.options().features) {
    fail_input(path, ": has ", features, " features, the network to train ", network.options().features,
               ": give --features ", features);
  }
  network.load_state(initial.network->state());
}

void print_plan(const Training& training, const TrainingSplit& split, const Quicksilver& network,
                const DeviceChoice& choice, const char* piece) {
  fmt::print("device      {} ({})\n", detail::concat(choice.device), choice.reason);
  fmt::print("network     {} features, {} parameters, {}\n", network.options().features,
             network.parameter_count(), name_of(network.options().precision));
  print_split(split);
  fmt::print("{:<11} {} an epoch, {} batches in all\n", piece, training.places(), training.total_steps());
  if (training.step() > 0) fmt::print("goes on     after batch {}\n", training.step());
  std::fflush(stdout);
}

void check_arguments(const QuicksilverArguments& arguments, const MomentumModel& model) {
  if (by_energy(arguments)) {
    if (model.sigma <= 0.0) fail_input(arguments.momenta, ": its model has no sigma, which the energy needs");
    if (arguments.smoothing_voxels > 0.0 || arguments.training.patches.intensity > 0.0 ||
        arguments.places != "grid") {
      fail_input("--smooth-momenta, --intensity and --places are for --loss momentum");
    }
    if (arguments.swap && arguments.training.loss.velocity > 0.0) {
      fail_input("--swap and --velocity-loss exclude each other: exchanged pairs have no momenta");
    }
  } else if (arguments.swap || arguments.similarity != "ssd") {
    fail_input("--swap and --similarity are for --loss energy");
  }
  if (arguments.correction == arguments.prediction.empty()) {
    fail_input("--correction and --network go together: the prediction network that is to be corrected");
  }
  require_writable_prefix(arguments.output);
}

TrainingRun run_of(const QuicksilverArguments& arguments, const MomentumModel& model) {
  const QuicksilverRole role =
      arguments.correction ? QuicksilverRole::correction : QuicksilverRole::prediction;
  const QuicksilverDescription description{
      arguments.network,
      role,
      model,
      {{"command", command_line()},
       {"seed", fmt::format("{}", arguments.network.seed)},
       {"precision", std::string(name_of(arguments.network.precision))}}};
  const std::filesystem::path output = arguments.output;
  const DType storage = arguments.storage;
  const auto write = [=](const SafeTensors& weights, const std::map<std::string, std::string>& notes) {
    QuicksilverDescription noted = description;
    noted.notes.insert(notes.begin(), notes.end());
    Quicksilver network(noted.network);
    network.load_state(weights);
    save_quicksilver(output, network, noted, storage);
  };
  return {kKind, TrainingFiles(arguments.output), {options_of(arguments, model), {}, {}},
          write, arguments.checkpoint_minutes,    arguments.max_minutes};
}

std::unique_ptr<Quicksilver> prediction_to_correct(const QuicksilverArguments& arguments, Device device) {
  LoadedQuicksilver prediction = load_quicksilver(arguments.prediction);
  if (prediction.description.role != QuicksilverRole::prediction) {
    fail_input(arguments.prediction, ": is a correction network; --network names the prediction network");
  }
  prediction.network->to(device);
  return std::move(prediction.network);
}

/// Lets the pairs point to what a correction network learns from them, made where it is missing.
void use_correction_lessons(TrainingSplit& split, const QuicksilverArguments& arguments,
                            const MomentumModel& model, Quicksilver& prediction) {
  const std::filesystem::path folder = correction_folder(arguments.momenta, arguments.prediction);
  CorrectionObserver observer;
  observer.keep_going = [] { return !interrupted(); };
  observer.made = [](std::size_t done, std::size_t all) {
    if (!common_options().quiet && (done % 10 == 0 || done == all)) {
      fmt::print(stderr, "lessons for the correction: {}/{}\n", done, all);
    }
  };
  for (auto* pairs : {&split.training, &split.validation}) {
    if (!make_correction_lessons(*pairs, folder, prediction, model, observer)) {
      throw InterruptedRun("interrupted; the same command goes on");
    }
  }
}

TrainingEnd train(Training& training, const TrainingRun& run, const char* piece) {
  TrainingProgress progress(training, common_options().quiet, piece);
  TrainingObserver observer;
  observer.keep_going = [] { return !interrupted(); };
  observer.advanced = [&] { progress.advanced(); };
  observer.validated = [&](const LossPoint& point) { progress.validated(point); };
  return run_training(training, run, observer);
}

std::unique_ptr<Training> training_of(const QuicksilverArguments& arguments, const MomentumModel& model,
                                      const TrainingSplit& split, Quicksilver& network,
                                      Quicksilver* prediction) {
  const VolumeSet pairs = training_volumes(split.training, arguments.smoothing_voxels);
  std::optional<VolumeSet> validation;
  if (!split.validation.empty()) validation = training_volumes(split.validation, arguments.smoothing_voxels);
  if (by_energy(arguments)) {
    return std::make_unique<QuicksilverEnergyTraining>(
        network, pairs, validation, resolve_energy(arguments, model), prediction);
  }
  return std::make_unique<QuicksilverTraining>(network, pairs, validation, resolve(arguments, model));
}

void run(const QuicksilverArguments& arguments) {
  const MomentumModel model = read_momentum_model(arguments.momenta);
  check_arguments(arguments, model);
  const DeviceChoice choice = choose_device(arguments.device);
  TrainingRun run = run_of(arguments, model);
  std::optional<TrainingCheckpoint> checkpoint;
  if (!arguments.restart) checkpoint = read_checkpoint(run.files.checkpoint, kKind);
  if (checkpoint) require_same_options(*checkpoint, run.settings.options, run.files.checkpoint);
  TrainingSplit split = choose_pairs(arguments, checkpoint);
  run.settings.training = names_of(split.training);
  run.settings.validation = names_of(split.validation);
  catch_interrupts();
  std::unique_ptr<Quicksilver> prediction;
  if (arguments.correction) prediction = prediction_to_correct(arguments, choice.device);
  if (prediction && !by_energy(arguments)) use_correction_lessons(split, arguments, model, *prediction);

  Quicksilver network(arguments.network);
  if (!arguments.initial.empty()) take_initial_weights(network, arguments.initial);
  network.to(choice.device);
  const std::unique_ptr<Training> training =
      training_of(arguments, model, split, network, prediction.get());
  if (checkpoint) resume(*training, *checkpoint, run.files.checkpoint);
  const char* piece = by_energy(arguments) ? "pairs" : "patches";
  if (!common_options().quiet) print_plan(*training, split, network, choice, piece);

  const TrainingEnd end = train(*training, run, piece);
  if (end == TrainingEnd::interrupted) {
    throw InterruptedRun(fmt::format("interrupted after batch {}; the same command goes on from {}",
                                     training->step(), run.files.checkpoint.string()));
  }
  if (!common_options().quiet) print_end(*training, run.files, end);
}

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
      ->check(CLI::PositiveNumber);
  command.add_option("--patch", arguments.patch, "extent of a patch in voxels")
      ->check(CLI::Range(std::int64_t{3}, kMaxQuicksilverPatch))
      ->capture_default_str();
  command
      .add_option("--stride", arguments.stride,
                  "distance of patches in voxels (default: one less than --patch)")
      ->check(CLI::PositiveNumber);
  command.add_option("--places", arguments.places, "where patches lie: on the grid, or anywhere")
      ->check(CLI::IsMember({"grid", "anywhere"}))
      ->capture_default_str();
  command.add_flag("--mirror", patches.mirror,
                   "exchange left and right of every other patch or pair, by chance");
  command.add_flag("--swap", arguments.swap, "exchange moving and fixed of every other pair, by chance");
  command
      .add_option("--smooth-momenta", arguments.smoothing_voxels,
                  "learn momenta smoothed by a Gaussian of so many voxels")
      ->check(CLI::Range(0.0, 10.0))
      ->capture_default_str();
  command
      .add_option("--intensity", patches.intensity,
                  "how much intensities vary by chance: gamma in 1 +- this, and noise")
      ->check(CLI::Range(0.0, 0.9))
      ->capture_default_str();
}

void add_optimiser_options(CLI::App& command, QuicksilverArguments& arguments) {
  QuicksilverTrainingOptions& training = arguments.training;
  command.add_option("--features", arguments.network.features, "channels of the network's first block")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_option("--dropout", arguments.network.dropout, "0.2 makes the probabilistic network")
      ->check(CLI::Range(0.0, 0.9))
      ->capture_default_str();
  command.add_flag("--correction", arguments.correction,
                   "train a correction network, on what the one named by --network leaves");
  command.add_option("--network", arguments.prediction, "prediction network to correct (.safetensors)");
  command.add_option("--initial", arguments.initial, "network whose weights to start from");
  command.add_option("--epochs", training.epochs, "as many patches as the grids have places are an epoch")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      .add_option("--loss", arguments.loss,
                  "momentum: distance to the momenta of the folder, patch by patch; energy: that of matching, "
                  "of whole pairs shot with the momenta predicted")
      ->check(CLI::IsMember({"momentum", "energy"}))
      ->capture_default_str();
  command.add_option("--similarity", arguments.similarity, "of the energy")
      ->check(CLI::IsMember({"ssd", "ncc", "lncc"}))
      ->capture_default_str();
  command
      .add_option("--velocity-loss", training.loss.velocity,
                  "weight of the squared error of the velocities that momenta make, beside either loss")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  add_rate_options(command, arguments, training);
  command.add_option("--seed", arguments.network.seed, "of weights, patches, augmentation and dropout")
      ->capture_default_str();
}

}  // namespace

void add_train_quicksilver(CLI::App& train) {
  auto arguments = std::make_shared<QuicksilverArguments>();
  CLI::App& command = *train.add_subcommand(
      "quicksilver", "Train a network that predicts initial momenta from pairs of scans, patch by patch");
  add_data_options(command, *arguments);
  add_optimiser_options(command, *arguments);
  add_run_options(command, *arguments);
  add_storage_option(command, arguments->storage);
  add_precision_option(command, arguments->network.precision);
  command.callback([arguments] {
    arguments->network.patch = {arguments->patch, arguments->patch, arguments->patch};
    if (arguments->stride == 0) arguments->stride = arguments->patch - 1;
    if (arguments->batch == 0) arguments->batch = by_energy(*arguments) ? 1 : 64;
    run(*arguments);
  });
}

}  // namespace cinnabar::apps
