// cinnabar train siamese: which slice of one brain lies at the height of a slice of another?

#include <fmt/core.h>

#include <chrono>
#include <memory>

#include "apps/commands.hpp"
#include "apps/interrupt.hpp"
#include "apps/number_checks.hpp"
#include "apps/small_trainings.hpp"
#include "models/slice_matching.hpp"
#include "registration/brain_slices.hpp"
#include "registration/output_file.hpp"
#include "registration/outputs.hpp"

namespace cinnabar::apps {

namespace {

using namespace registration;

constexpr std::int64_t kBatches = 1000;  ///< of a training whose epochs nobody named

struct SiameseArguments {
  std::vector<std::string> scans, losses = matching_loss_names();
  std::string warp = "none", output;
  std::int64_t seeds = 3;
  std::uint64_t first_seed = 0;
  SliceOptions slices{.levels = 2};  // which are not asked for
  SliceMatcherOptions network;
  MatchingTrainingOptions training{.epochs = 0};  ///< 0 epochs: about kBatches
};

/// A way to match slices, a row of the table.
struct Outcome {
  std::string method;
  std::uint64_t seed = 0;  ///< of a network
  std::int64_t parameters = 0;
  double loss = 0.0;  ///< of the last epoch
  MatchingScore score;
  double seconds = 0.0;
};

Outcome train_one(const SiameseArguments& arguments, const SliceStacks& data, const RandomWarp& warp,
                  const std::string& loss, std::uint64_t seed) {
  const auto began = std::chrono::steady_clock::now();
  SliceMatcherOptions network_options = arguments.network;
  network_options.loss = loss == "correlation" ? MatchingLoss::correlation : MatchingLoss::contrastive;
  network_options.seed = seed;
  SliceMatcher network(network_options);
  MatchingTrainingOptions options = arguments.training;
  options.seed = seed;
  MatchingTraining training(network, data.training, warp, options);
  Outcome outcome{loss, seed, network.parameter_count(), 0.0, {}, 0.0};
  outcome.loss = train_epochs(training, options.epochs, fmt::format("{} seed {}", loss, seed));
  network.eval();
  outcome.score = score_matching([&](const Tensor& a, const Tensor& b) { return network.distances(a, b); },
                                 data.test, warp);
  outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  if (!arguments.output.empty() && seed == arguments.first_seed) {
    save_slice_matcher(network_file(arguments.output, arguments.losses, loss), network);
  }
  return outcome;
}

/// What needs no training: drawing lots, and comparing the images themselves.
std::vector<Outcome> baselines(const SliceStacks& data, const RandomWarp& warp) {
  const auto began = std::chrono::steady_clock::now();
  const MatchingScore score = score_matching(correlation_distances, data.test, warp);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  return {{"chance", 0, 0, 0.0, chance_matching(data.test), 0.0}, {"ncc", 0, 0, 0.0, score, seconds}};
}

std::string table_of(const std::vector<Outcome>& outcomes, const SiameseArguments& arguments) {
  const double mm = arguments.slices.distance_mm;
  std::string text = fmt::format(
      "method,warp,seed,parameters,epochs,training_loss,error_mm,within_{:g}_mm,within_{:g}_mm,"
      "seconds\n",
      2 * mm, 4 * mm);
  for (const Outcome& one : outcomes) {
    if (one.parameters > 0) {
      text += fmt::format("{},{},{},{},{},{:.6f},", one.method, arguments.warp, one.seed, one.parameters,
                          arguments.training.epochs, one.loss);
    } else {
      text += fmt::format("{},{},,,,,", one.method, arguments.warp);
    }
    text += fmt::format("{:.6f},{:.6f},{:.6f},{:.1f}\n", mm * one.score.error, one.score.within2,
                        one.score.within4, one.seconds);
  }
  return text;
}

void print_row(const Outcome& one, double mm) {
  const bool trained = one.parameters > 0;
  fmt::print("{:<13}{:>5}{:>11}{:>10.2f}{:>9.2f}{:>9.2f}{:>9.0f}\n", one.method,
             trained ? fmt::format("{}", one.seed) : "", trained ? fmt::format("{}", one.parameters) : "",
             mm * one.score.error, 100.0 * one.score.within2, 100.0 * one.score.within4, one.seconds);
  std::fflush(stdout);
}

void print_head(const SiameseArguments& arguments, const SliceStacks& data) {
  const double mm = arguments.slices.distance_mm;
  fmt::print("data          {}, a slice every {:g} mm\n", data.description, mm);
  fmt::print("figures       distance between the slice found and the one at the same height, in mm; % of\n");
  fmt::print(
      "              slices found within {:g} and {:g} mm; all pairs of different test scans, warp {}\n",
      2 * mm, 4 * mm, arguments.warp);
  fmt::print("{:<13}{:>5}{:>11}{:>10}{:>9}{:>9}{:>9}\n", "matched by", "seed", "parameters", "error mm",
             fmt::format("{:g} mm", 2 * mm), fmt::format("{:g} mm", 4 * mm), "seconds");
  std::fflush(stdout);
}

void run(SiameseArguments arguments) {
  if (!arguments.output.empty()) require_writable_prefix(arguments.output, "--out");
  const RandomWarp warp(arguments.warp, {arguments.slices.side, arguments.slices.side});
  catch_interrupts();
  const SliceStacks data = stack_slices(scans_of(arguments.scans), arguments.slices);
  if (arguments.training.epochs == 0) {
    std::int64_t count = 0;
    for (const Tensor& stack : data.training) count += stack.shape(0);
    arguments.training.epochs = epochs_of(kBatches, count, arguments.training.batch_size);
  }
  print_head(arguments, data);
  std::vector<Outcome> all = baselines(data, warp);
  for (const Outcome& one : all) print_row(one, arguments.slices.distance_mm);
  for (const std::string& loss : arguments.losses) {
    for (std::int64_t i = 0; i < arguments.seeds; ++i) {
      const std::uint64_t seed = arguments.first_seed + static_cast<std::uint64_t>(i);
      all.push_back(train_one(arguments, data, warp, loss, seed));
      print_row(all.back(), arguments.slices.distance_mm);
    }
  }
  if (!arguments.output.empty()) {
    const std::filesystem::path table = beside(arguments.output, ".csv");
    write_text(table, table_of(all, arguments));
    if (!common_options().quiet) fmt::print("written       {} and the networks\n", table.string());
  }
}

}  // namespace

void add_train_siamese(CLI::App& train) {
  auto arguments = std::make_shared<SiameseArguments>();
  CLI::App& command = *train.add_subcommand(
      "siamese", "Networks that find the slice of one brain at the height of a slice of another");
  command
      .add_option("--scans", arguments->scans,
                  "six or more skull-stripped scans, or a list of them (.csv with the header scan); every "
                  "third one is tested on")
      ->expected(1, -1)
      ->required();
  command
      .add_option("--loss", arguments->losses,
                  "contrastive: distances of embeddings; correlation: of features, place by place; one or "
                  "both")
      ->check(CLI::IsMember(matching_loss_names()))
      ->expected(1, -1)
      ->capture_default_str();
  command.add_option("--warp", arguments->warp, "random transformations of all images")
      ->check(CLI::IsMember(RandomWarp::names()))
      ->capture_default_str();
  command.add_option("--out", arguments->output,
                     "network of the first seed (.safetensors); the table is written beside it (.csv)");
  add_seed_options(command, arguments->seeds, arguments->first_seed);
  command
      .add_option("--epochs", arguments->training.epochs,
                  "each as many slices as there are to train on (default: 1000 batches)")
      ->check(kPositive);
  command
      .add_option("--batch", arguments->training.batch_size,
                  "slices in a batch, each compared with the matches of all")
      ->check(kPositive)
      ->capture_default_str();
  command.add_option("--learning-rate", arguments->training.learning_rate, "of Adam, at the start")
      ->check(kPositive)
      ->capture_default_str();
  command
      .add_option("--gap", arguments->training.gap, "slices that do not belong together are as many apart")
      ->check(number_in(0.5, 50.0))
      ->capture_default_str();
  command.add_option("--channels", arguments->network.channels, "of the encoder's levels")
      ->check(CLI::Range(1, 512))
      ->expected(1, 8)
      ->capture_default_str();
  command.add_option("--embedding", arguments->network.embedding, "numbers that stand for a slice")
      ->check(CLI::Range(1, 512))
      ->capture_default_str();
  add_pixel_options(command, arguments->slices.side, arguments->slices.pixel_mm);
  command.add_option("--distance", arguments->slices.distance_mm, "of one slice from the next in mm")
      ->check(number_in(0.5, 20.0))
      ->capture_default_str();
  command.callback([arguments] { run(*arguments); });
}

}  // namespace cinnabar::apps
