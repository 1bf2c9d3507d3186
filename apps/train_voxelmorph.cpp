// cinnabar train voxelmorph: from a list of pairs of scans to a network that registers in one pass.

#include <fmt/core.h>

#include <chrono>
#include <cmath>
#include <memory>
#include <optional>

#include "apps/commands.hpp"
#include "apps/device_choice.hpp"
#include "apps/interrupt.hpp"
#include "apps/number_checks.hpp"
#include "apps/similarity_options.hpp"
#include "apps/training_options.hpp"
#include "apps/training_progress.hpp"
#include "models/voxelmorph_file.hpp"
#include "models/voxelmorph_training.hpp"
#include "registration/output_file.hpp"
#include "registration/outputs.hpp"
#include "registration/prepared_pairs.hpp"

namespace cinnabar::apps {

namespace {

using namespace registration;

constexpr const char* kKind = "voxelmorph";

struct VoxelmorphArguments : TrainingArguments {
  std::string prepared, initial, loss = "lncc";
  std::optional<double> smoothness;
  double spacing_mm = 2.0;
  bool as_is = false, full_resolution = false;
  VoxelmorphOptions network;
  VoxelmorphTrainingOptions training;
};

PairsOptions pairs_options(const VoxelmorphArguments& arguments, Device device) {
  PairsOptions options;
  options.spacing_mm = arguments.spacing_mm;
  if (arguments.as_is) {
    options.preparation.resolution_mm = arguments.spacing_mm;
  } else {
    options.preparation.head_voxels = head_voxels_at(arguments.spacing_mm);
  }
  options.affine.device = device;
  options.preparation.device = device;
  return options;
}

VoxelmorphTrainingOptions resolve(const VoxelmorphArguments& arguments) {
  VoxelmorphTrainingOptions options = arguments.training;
  options.loss.similarity = similarity_named(arguments.loss);
  options.loss.smoothness = arguments.smoothness.value_or(default_smoothness(options.loss.similarity));
  options.schedule = schedule_of(arguments);
  options.draws.seed = arguments.network.seed;
  return options;
}

/// What a checkpoint keeps of the command: all that changes the weights.
std::map<std::string, std::string> options_of(const VoxelmorphArguments& arguments,
                                              const VoxelmorphTrainingOptions& training) {
  const VoxelmorphOptions& network = arguments.network;
  const auto flag = [](bool on) { return std::string(on ? "on" : "off"); };
  return {
      {"--spacing", fmt::format("{}", arguments.spacing_mm)},
      {"--no-head-scaling", flag(arguments.as_is)},
      {"--features", fmt::format("{}", network.features)},
      {"--levels", fmt::format("{}", network.levels)},
      {"--convolutions", fmt::format("{}", network.convolutions)},
      {"--full-resolution", flag(arguments.full_resolution)},
      {"--squarings", fmt::format("{}", network.squarings)},
      {"--symmetric", flag(network.symmetric)},
      {"--seed", fmt::format("{}", network.seed)},
      {"--initial", arguments.initial.empty() ? "" : checksum(arguments.initial)},
      {"--loss", arguments.loss},
      {"--lncc-radius", fmt::format("{}", training.loss.lncc_radius)},
      {"--smoothness", fmt::format("{}", training.loss.smoothness)},
      {"--epochs", fmt::format("{}", training.epochs)},
      {"--batch", fmt::format("{}", training.batch_size)},
      {"--swap", flag(training.draws.swap)},
      {"--mirror", flag(training.draws.mirror)},
      {"--learning-rate", fmt::format("{}", training.learning_rate)},
      {"--schedule", arguments.schedule},
      {"--moving-average", fmt::format("{}", training.moving_average)},
      {"--validation-steps", fmt::format("{}", training.validation_steps)},
      {"--validation", arguments.validation ? fmt::format("{}", *arguments.validation) : ""},
      {"--validation-pairs", arguments.validation_pairs.empty() ? "" : checksum(arguments.validation_pairs)}};
}

/// Aligns and prepares the pairs that are not yet in the folder, with one line every ten.
void prepare(const std::vector<PairEntry>& pairs, const std::filesystem::path& folder,
             const PairsOptions& options) {
  const auto began = std::chrono::steady_clock::now();
  std::size_t made = 0;
  PairsObserver observer;
  observer.keep_going = [] { return !interrupted(); };
  observer.prepared = [&](const PairEntry& pair, std::size_t done, std::size_t all, double ncc) {
    ++made;
    if (common_options().quiet || (done % 10 != 0 && done != all && !common_options().verbose)) return;
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - began;
    const double rest = elapsed.count() / static_cast<double>(made) * static_cast<double>(all - done);
    fmt::print(stderr, "[{}/{}] {} prepared, NCC {:.4f}, about {:.0f} min to go\n", done, all, pair.name, ncc,
               std::ceil(rest / 60.0));
  };
  prepare_pairs(pairs, folder, options, observer);
}

/// The pairs of the list, prepared, trained on and validated with as it says.
TrainingSplit choose_pairs(const VoxelmorphArguments& arguments, const std::filesystem::path& folder,
                           const std::optional<TrainingCheckpoint>& checkpoint) {
  const TrainingSplit split =
      split_pairs(finished_pairs(folder, arguments.pairs, false), arguments, arguments.network.seed);
  if (checkpoint) require_same_pairs(split, checkpoint->settings, arguments);
  return split;
}

TrainingRun run_of(const VoxelmorphArguments& arguments, const VoxelmorphTrainingOptions& training,
                   const PairsOptions& pairs) {
  VoxelmorphDescription description;
  description.network = arguments.network;
  description.loss = training.loss;
  description.spacing_mm = pairs.spacing_mm;
  description.head_voxels = pairs.preparation.head_voxels;
  description.notes = {{"command", command_line()}, {"seed", fmt::format("{}", arguments.network.seed)}};
  const std::filesystem::path output = arguments.output;
  const auto write = [=](const SafeTensors& weights, const std::map<std::string, std::string>& notes) {
    VoxelmorphDescription noted = description;
    noted.notes.insert(notes.begin(), notes.end());
    Voxelmorph network(noted.network);
    network.load_state(weights);
    save_voxelmorph(output, network, noted);
  };
  return {kKind, TrainingFiles(arguments.output), {options_of(arguments, training), {}, {}},
          write, arguments.checkpoint_minutes,    arguments.max_minutes};
}

void print_plan(const Training& training, const TrainingSplit& split, const Voxelmorph& network,
                const DeviceChoice& choice) {
  fmt::print("device      {} ({})\n", detail::concat(choice.device), choice.reason);
  fmt::print("network     {} features, {} levels, {} parameters\n", network.options().features,
             network.options().levels, network.parameter_count());
  print_split(split);
  fmt::print("batches     {} in all\n", training.total_steps());
  if (training.step() > 0) fmt::print("goes on     after batch {}\n", training.step());
  std::fflush(stdout);
}

void run(const VoxelmorphArguments& arguments) {
  require_writable_prefix(arguments.output);
  const DeviceChoice choice = choose_device(arguments.device);
  const std::vector<PairEntry> list = read_pairs(arguments.pairs);
  const VoxelmorphTrainingOptions options = resolve(arguments);
  const PairsOptions pairs = pairs_options(arguments, choice.device);
  TrainingRun run = run_of(arguments, options, pairs);
  std::optional<TrainingCheckpoint> checkpoint;
  if (!arguments.restart) checkpoint = read_checkpoint(run.files.checkpoint, kKind);
  if (checkpoint) require_same_options(*checkpoint, run.settings.options, run.files.checkpoint);
  Voxelmorph network(arguments.network);
  if (!arguments.initial.empty()) network.load_state(load_voxelmorph(arguments.initial).network->state());
  network.to(choice.device);

  catch_interrupts();
  const std::filesystem::path folder =
      arguments.prepared.empty() ? run.files.prepared : std::filesystem::path(arguments.prepared);
  prepare(list, folder, pairs);
  const TrainingSplit split = choose_pairs(arguments, folder, checkpoint);
  run.settings.training = names_of(split.training);
  run.settings.validation = names_of(split.validation);
  std::optional<VolumeSet> validation;
  if (!split.validation.empty()) validation = training_volumes(split.validation, 0.0);
  VoxelmorphTraining training(network, training_volumes(split.training, 0.0), validation, options);
  if (checkpoint) resume(training, *checkpoint, run.files.checkpoint);
  if (!common_options().quiet) print_plan(training, split, network, choice);

  TrainingProgress progress(training, common_options().quiet, "pairs");
  TrainingObserver observer;
  observer.keep_going = [] { return !interrupted(); };
  observer.advanced = [&] { progress.advanced(); };
  observer.validated = [&](const LossPoint& point) { progress.validated(point); };
  const TrainingEnd end = run_training(training, run, observer);
  if (end == TrainingEnd::interrupted) {
    throw InterruptedRun(fmt::format("interrupted after batch {}; the same command goes on from {}",
                                     training.step(), run.files.checkpoint.string()));
  }
  if (!common_options().quiet) print_end(training, run.files, end);
}

void add_data_options(CLI::App& command, VoxelmorphArguments& arguments) {
  VoxelmorphTrainingOptions& training = arguments.training;
  command.add_option("--pairs", arguments.pairs, "list of pairs (.csv): moving,fixed[,name][,split]")
      ->required();
  command.add_option("--prepared", arguments.prepared,
                     "folder for the aligned pairs, to be used by other trainings too (default: NET_pairs)");
  command
      .add_option("--spacing", arguments.spacing_mm,
                  "spacing of the grids in mm for a brain of 1400 ml; larger and smaller ones get grids in "
                  "proportion, so that all have equally many voxels")
      ->check(kPositive)
      ->capture_default_str();
  command.add_flag("--no-head-scaling", arguments.as_is, "use that spacing for every brain");
  add_validation_options(command, arguments);
  command.add_option("--batch", training.batch_size, "pairs in a batch")
      ->check(kPositive)
      ->capture_default_str();
  command.add_flag("--swap", training.draws.swap, "exchange moving and fixed of every other pair, by chance");
  command.add_flag("--mirror", training.draws.mirror,
                   "exchange left and right of every other pair, by chance");
}

void add_network_options(CLI::App& command, VoxelmorphArguments& arguments) {
  VoxelmorphOptions& network = arguments.network;
  command.add_option("--features", network.features, "channels at the full resolution, half of the others'")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command.add_option("--levels", network.levels, "of the U-Net, each half as fine as the one before")
      ->check(CLI::Range(2, 10))
      ->capture_default_str();
  command.add_option("--convolutions", network.convolutions, "of a level, down and up")
      ->check(CLI::Range(1, 16))
      ->capture_default_str();
  command.add_flag("--full-resolution", arguments.full_resolution,
                   "a velocity on the images' grid, not on one of half the resolution");
  command.add_option("--squarings", network.squarings, "of the velocity's integration")
      ->check(CLI::Range(0, 20))
      ->capture_default_str();
  command.add_flag("--symmetric", network.symmetric,
                   "average the velocity with the negative one of the exchanged images");
  command.add_option("--initial", arguments.initial, "network whose weights to start from");
  command.add_option("--seed", network.seed, "of weights, order and chance")->capture_default_str();
}

void add_loss_options(CLI::App& command, VoxelmorphArguments& arguments) {
  VoxelmorphTrainingOptions& training = arguments.training;
  add_similarity(command, "--loss", arguments.loss, "similarity of the warped moving image and the fixed one")
      ->capture_default_str();
  add_lncc_radius(command, training.loss.lncc_radius)->capture_default_str();
  command
      .add_option("--smoothness", arguments.smoothness,
                  "weight of the velocity's squared gradient (default: 1, or 0.02 for ssd)")
      ->check(kNonNegative);
  command.add_option("--epochs", training.epochs, "every pair is seen once in an epoch")
      ->check(kPositive)
      ->capture_default_str();
  add_rate_options(command, arguments, training);
}

}  // namespace

void add_train_voxelmorph(CLI::App& train) {
  auto arguments = std::make_shared<VoxelmorphArguments>();
  arguments->training.epochs = 100;
  arguments->training.learning_rate = 1e-3;
  CLI::App& command = *train.add_subcommand(
      "voxelmorph", "Train a network that registers in one pass, from pairs of scans alone");
  add_data_options(command, *arguments);
  add_network_options(command, *arguments);
  add_loss_options(command, *arguments);
  add_run_options(command, *arguments);
  command.callback([arguments] {
    arguments->network.half_resolution = !arguments->full_resolution;
    run(*arguments);
  });
}

}  // namespace cinnabar::apps
