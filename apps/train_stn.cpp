// cinnabar train stn: classifies slices of brains under random warps, with and without spatial transformers.

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <memory>

#include "apps/commands.hpp"
#include "apps/interrupt.hpp"
#include "apps/number_checks.hpp"
#include "apps/small_trainings.hpp"
#include "models/slice_training.hpp"
#include "registration/brain_slices.hpp"
#include "registration/output_file.hpp"
#include "registration/outputs.hpp"

namespace cinnabar::apps {

namespace {

using namespace registration;

constexpr const char* kColin = "/usr/share/mricron/templates/ch2bet.nii.gz";
constexpr std::int64_t kBatches = 1500;  ///< of a training whose epochs nobody named

struct StnArguments {
  std::vector<std::string> scans;
  std::vector<std::string> transformers{"none", "affine"};
  std::string warp = "affine", task = "classify", output;
  std::int64_t seeds = 3;
  std::uint64_t first_seed = 0;
  int rounds = 4;
  SliceOptions slices;
  SliceClassifierOptions network;
  SliceTrainingOptions training{.epochs = 0};  ///< 0 epochs: about kBatches
};

/// One training's outcome, a row of the table.
struct Outcome {
  std::string transformer;
  std::uint64_t seed = 0;
  std::int64_t parameters = 0;
  double loss = 0.0;  ///< of the last epoch
  SliceScore score;
  double seconds = 0.0;
};

std::vector<std::string> scans_or_colin(const StnArguments& arguments) {
  if (!arguments.scans.empty()) return arguments.scans;
  if (!std::filesystem::exists(kColin)) {
    fail_input("there is no ", kColin, ": install mricron-data, or give skull-stripped scans with --scans");
  }
  return {kColin};
}

/// Without a transformer the classifier is widened until it has about as many parameters as with an affine
/// one.
SliceClassifierOptions network_options(const StnArguments& arguments, const std::string& transformer,
                                       std::uint64_t seed) {
  SliceClassifierOptions options = arguments.network;
  options.transformer = transformer;
  options.side = arguments.slices.side;
  options.classes = arguments.slices.levels;
  options.seed = seed;
  if (transformer == "icstn" && arguments.warp == "homography") options.transformer = "icstn-homography";
  if (transformer != "none") return options;
  options.transformer = "affine";
  return widened_plain(options);
}

Outcome train_one(const StnArguments& arguments, const SliceSplit& data, const RandomWarp& warp,
                  const std::string& transformer, std::uint64_t seed) {
  const auto began = std::chrono::steady_clock::now();
  SliceClassifier network(network_options(arguments, transformer, seed));
  SliceTrainingOptions options = arguments.training;
  options.seed = seed;
  options.task = arguments.task == "align" ? SliceTask::align : SliceTask::classify;
  SliceTraining training(network, data.training, warp, options);
  Outcome outcome{transformer, seed, network.parameter_count(), 0.0, {}, 0.0};
  outcome.loss = train_epochs(training, options.epochs, fmt::format("{} seed {}", transformer, seed));
  outcome.score = score_slices(network, data.test, warp, arguments.rounds);
  outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  if (!arguments.output.empty() && seed == arguments.first_seed) {
    save_slice_classifier(network_file(arguments.output, arguments.transformers, transformer), network);
  }
  return outcome;
}

std::string table_of(const std::vector<Outcome>& outcomes, const StnArguments& arguments) {
  std::string text =
      "task,transformer,warp,seed,parameters,epochs,training_loss,accuracy,near,spread,left,seconds\n";
  for (const Outcome& one : outcomes) {
    text += fmt::format("{},{},{},{},{},{},{:.6f},", arguments.task, one.transformer, arguments.warp,
                        one.seed, one.parameters, arguments.training.epochs, one.loss);
    // A classifier that was not trained has nothing to say.
    if (arguments.task == "align") {
      text += fmt::format(",,{:.6f},{:.6f}", one.score.spread, one.score.left);
    } else {
      text += fmt::format("{:.6f},{:.6f},{:.6f},", one.score.accuracy, one.score.near, one.score.spread);
    }
    text += fmt::format(",{:.1f}\n", one.seconds);
  }
  return text;
}

/// One line for the outcomes of one transformer.
void print_row(const std::vector<Outcome>& outcomes, bool align) {
  const auto mean = [&](auto value) {
    double sum = 0.0;
    for (const Outcome& one : outcomes) sum += value(one);
    return sum / static_cast<double>(outcomes.size());
  };
  const auto figure = [align](const Outcome& one) {
    return 100.0 * (align ? one.score.left : one.score.accuracy);
  };
  fmt::print("{:<14}{:>10}  ", outcomes.front().transformer, outcomes.front().parameters);
  for (const Outcome& one : outcomes) fmt::print("{:>8.2f}", figure(one));
  fmt::print("{:>9.2f}", mean(figure));
  if (!align) fmt::print("{:>9.2f}", mean([](const Outcome& one) { return 100.0 * one.score.near; }));
  fmt::print("{:>9.3f}{:>9.0f}\n", mean([](const Outcome& one) { return one.score.spread; }),
             mean([](const Outcome& one) { return one.seconds; }));
  std::fflush(stdout);
}

void print_head(const StnArguments& arguments, const SliceSplit& data) {
  const bool align = arguments.task == "align";
  fmt::print("data          {}\n", data.description);
  fmt::print("slices        {} to train on, {} to test on, {} levels, each tested under {} {} warps\n",
             data.training.images.shape(0), data.test.images.shape(0), arguments.slices.levels,
             arguments.rounds, arguments.warp);
  fmt::print("figures       {}\n", align
                                       ? "difference to the unwarped slices, % of that without a transformer"
                                       : "% of test slices whose level is right (near: or next to it)");
  fmt::print("{:<14}{:>10}  ", "transformer", "parameters");
  for (std::int64_t i = 0; i < arguments.seeds; ++i) {
    fmt::print("{:>8}", fmt::format("seed {}", arguments.first_seed + static_cast<std::uint64_t>(i)));
  }
  fmt::print("{:>9}{}{:>9}{:>9}\n", "mean", align ? "" : "     near", "spread", "seconds");
  std::fflush(stdout);
}

void run(StnArguments arguments) {
  const bool plain = std::find(arguments.transformers.begin(), arguments.transformers.end(), "none") !=
                     arguments.transformers.end();
  if (plain && arguments.task == "align") {
    fail_input("without a transformer nothing can be aligned: give other kinds with --transformer");
  }
  if (!arguments.output.empty()) require_writable_prefix(arguments.output, "--out");
  const RandomWarp warp(arguments.warp, {arguments.slices.side, arguments.slices.side});
  catch_interrupts();
  const SliceSplit data = split_slices(scans_of(scans_or_colin(arguments)), arguments.slices);
  if (arguments.training.epochs == 0) {
    arguments.training.epochs =
        epochs_of(kBatches, data.training.images.shape(0), arguments.training.batch_size);
  }
  print_head(arguments, data);
  std::vector<Outcome> all;
  for (const std::string& transformer : arguments.transformers) {
    std::vector<Outcome> outcomes;
    for (std::int64_t i = 0; i < arguments.seeds; ++i) {
      const std::uint64_t seed = arguments.first_seed + static_cast<std::uint64_t>(i);
      outcomes.push_back(train_one(arguments, data, warp, transformer, seed));
    }
    print_row(outcomes, arguments.task == "align");
    all.insert(all.end(), outcomes.begin(), outcomes.end());
  }
  if (!arguments.output.empty()) {
    const std::filesystem::path table = beside(arguments.output, ".csv");
    write_text(table, table_of(all, arguments));
    if (!common_options().quiet) fmt::print("written       {} and the networks\n", table.string());
  }
}

}  // namespace

void add_train_stn(CLI::App& train) {
  auto arguments = std::make_shared<StnArguments>();
  CLI::App& command = *train.add_subcommand(
      "stn", "Networks that tell the height of brain slices under random warps, with spatial transformers");
  command
      .add_option("--scans", arguments->scans,
                  "skull-stripped scans, or a list of them (.csv with the header scan); every third one is "
                  "tested on (default: Colin27 of mricron-data)")
      ->expected(1, -1);
  std::vector<std::string> transformers = slice_transformer_names();
  command
      .add_option(
          "--transformer", arguments->transformers,
          "what is in front of the classifier, one or several; icstn is affine, or a homography where "
          "the warp is one")
      ->check(CLI::IsMember(transformers))
      ->expected(1, -1)
      ->capture_default_str();
  command
      .add_option("--task", arguments->task,
                  "classify: tell the level of a slice; align: bring it back to what it was before the warp")
      ->check(CLI::IsMember({"classify", "align"}))
      ->capture_default_str();
  command.add_option("--warp", arguments->warp, "random transformations of all images")
      ->check(CLI::IsMember(RandomWarp::names()))
      ->capture_default_str();
  command.add_option("--out", arguments->output,
                     "network of the first seed (.safetensors); the table is written beside it (.csv)");
  add_seed_options(command, arguments->seeds, arguments->first_seed);
  command
      .add_option("--epochs", arguments->training.epochs, "passes over the slices (default: 1500 batches)")
      ->check(kPositive);
  command.add_option("--batch", arguments->training.batch_size, "slices in a batch")
      ->check(kPositive)
      ->capture_default_str();
  command.add_option("--learning-rate", arguments->training.learning_rate, "of Adam, at the start")
      ->check(kPositive)
      ->capture_default_str();
  command.add_option("--width", arguments->network.width, "channels of the classifier's first convolution")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  command.add_option("--levels", arguments->slices.levels, "parts of equal height to tell apart")
      ->check(CLI::Range(2, 50))
      ->capture_default_str();
  add_pixel_options(command, arguments->slices.side, arguments->slices.pixel_mm);
  command.add_option("--recursions", arguments->network.recursions, "of icstn")
      ->check(CLI::Range(1, 32))
      ->capture_default_str();
  command.add_option("--boxes", arguments->network.grid.boxes, "of CPAB, along each axis")
      ->check(CLI::Range(1, 16))
      ->capture_default_str();
  command.add_option("--rounds", arguments->rounds, "warps that each slice is tested under")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  command.callback([arguments] { run(*arguments); });
}

}  // namespace cinnabar::apps
