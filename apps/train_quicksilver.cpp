// cinnabar train quicksilver: from a folder of momenta, or of pairs alone, to a network.

#include <fmt/core.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/commands.hpp"
#include "apps/device_choice.hpp"
#include "apps/interrupt.hpp"
#include "apps/train_quicksilver_options.hpp"
#include "apps/training_progress.hpp"
#include "kernels/conv3d_precision.hpp"
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

constexpr const char* kKind = "quicksilver";

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
  options.matching = model.matching();
  if (!arguments.similarity.empty()) options.matching.similarity = similarity_named(arguments.similarity);
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
      {"--similarity",
       by_energy(arguments) ? name_of(resolve_energy(arguments, model).matching.similarity) : ""},
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
    return std::make_unique<QuicksilverEnergyTraining>(network, pairs, validation,
                                                       resolve_energy(arguments, model), prediction);
  }
  return std::make_unique<QuicksilverTraining>(network, pairs, validation, resolve(arguments, model));
}

void run(const QuicksilverArguments& arguments) {
  const MomentumModel model = read_momentum_model(arguments.momenta);
  require_consistent(arguments, model);
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
  const std::unique_ptr<Training> training = training_of(arguments, model, split, network, prediction.get());
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

}  // namespace

void add_train_quicksilver(CLI::App& train) {
  auto arguments = std::make_shared<QuicksilverArguments>();
  CLI::App& command = *train.add_subcommand(
      "quicksilver", "Train a network that predicts initial momenta from pairs of scans, patch by patch");
  add_quicksilver_options(command, *arguments);
  command.callback([arguments] {
    complete(*arguments);
    run(*arguments);
  });
}

}  // namespace cinnabar::apps
