// cinnabar train coords: networks that turn coordinates into pixels or pixels into coordinates, by plain
// convolutions and by CoordConv.

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <memory>

#include "apps/commands.hpp"
#include "apps/interrupt.hpp"
#include "apps/number_checks.hpp"
#include "apps/small_trainings.hpp"
#include "models/coord_task.hpp"
#include "registration/output_file.hpp"
#include "registration/outputs.hpp"

namespace cinnabar::apps {

namespace {

using namespace registration;

struct CoordArguments {
  std::string task = "classify", output;
  std::vector<std::string> layers = coord_layer_names(), splits = coord_split_names();
  std::int64_t square = 9, seeds = 3;
  CoordOptions network;  ///< the seed is the first one
};

/// One training's outcome, a row of the table.
struct Outcome {
  std::string split, layer;
  std::uint64_t seed = 0;
  std::int64_t parameters = 0, epochs = 0;
  double loss = 0.0;  ///< of the last epoch
  CoordScore training, test;
  double seconds = 0.0;
};

/// The value that has this name among those of an option.
template <class Choice>
Choice choice_of(const std::string& name, const std::vector<std::string>& names) {
  return static_cast<Choice>(std::find(names.begin(), names.end(), name) - names.begin());
}

Outcome train_one(const CoordArguments& arguments, const std::string& split, const std::string& layer,
                  std::uint64_t seed) {
  const auto began = std::chrono::steady_clock::now();
  CoordOptions options = arguments.network;
  options.task = choice_of<CoordTask>(arguments.task, coord_task_names());
  options.layer = choice_of<CoordLayer>(layer, coord_layer_names());
  options.seed = seed;
  const CoordPlaces places =
      split_places(choice_of<CoordSplit>(split, coord_split_names()), options.side, arguments.square, seed);
  CoordTraining training(options, places.training);
  Outcome outcome{split, layer, seed, training.network().parameter_count(), training.options().epochs, 0.0,
                  {},    {},    0.0};
  outcome.loss = train_epochs(training, outcome.epochs, fmt::format("{} {} seed {}", split, layer, seed), 6);
  outcome.training = training.score(places.training);
  outcome.test = training.score(places.test);
  outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  return outcome;
}

std::string table_of(const std::vector<Outcome>& outcomes, const CoordArguments& arguments) {
  std::string text =
      "task,split,layer,seed,parameters,epochs,training_loss,training_right,training_distance_px,test_right,"
      "test_distance_px,seconds\n";
  for (const Outcome& one : outcomes) {
    text +=
        fmt::format("{},{},{},{},{},{},{:.6g},{:.6f},{:.6f},{:.6f},{:.6f},{:.1f}\n", arguments.task,
                    one.split, one.layer, one.seed, one.parameters, one.epochs, one.loss, one.training.right,
                    one.training.distance, one.test.right, one.test.distance, one.seconds);
  }
  return text;
}

void print_row(const Outcome& one) {
  fmt::print("{:<10}{:<11}{:>5}{:>11}{:>10.2f}{:>9.2f}{:>9.2f}{:>9.2f}{:>9.0f}\n", one.split, one.layer,
             one.seed, one.parameters, 100.0 * one.training.right, one.training.distance,
             100.0 * one.test.right, one.test.distance, one.seconds);
  std::fflush(stdout);
}

void run(const CoordArguments& arguments) {
  const CoordOptions& network = arguments.network;
  if ((network.side & (network.side - 1)) != 0) {
    fail_input("--side is ", network.side, ": the plain networks double and halve it, so give a power of 2");
  }
  if (arguments.square % 2 == 0 || arguments.square + 4 > network.side) {
    fail_input("--square is ", arguments.square, ": give an odd number that leaves room in --side ",
               network.side);
  }
  if (!arguments.output.empty()) require_writable_prefix(arguments.output, "--out");
  catch_interrupts();
  const std::int64_t along = network.side - arguments.square + 1;
  fmt::print("places        {} of {} x {} pixels, a quarter of which is tested on\n", along * along,
             network.side, network.side);
  fmt::print("figures       right: % of places told to the pixel; away: mean distance in pixels\n");
  fmt::print("{:<10}{:<11}{:>5}{:>11}{:>10}{:>9}{:>9}{:>9}{:>9}\n", "split", "layer", "seed", "parameters",
             "trained", "away", "tested", "away", "seconds");
  std::vector<Outcome> all;
  for (const std::string& split : arguments.splits) {
    for (const std::string& layer : arguments.layers) {
      for (std::int64_t i = 0; i < arguments.seeds; ++i) {
        all.push_back(train_one(arguments, split, layer, network.seed + static_cast<std::uint64_t>(i)));
        print_row(all.back());
      }
    }
  }
  if (!arguments.output.empty()) {
    write_text(arguments.output, table_of(all, arguments));
    if (!common_options().quiet) fmt::print("written       {}\n", arguments.output);
  }
}

}  // namespace

void add_train_coords(CLI::App& train) {
  auto arguments = std::make_shared<CoordArguments>();
  CLI::App& command = *train.add_subcommand(
      "coords", "Networks that turn coordinates into pixels, or pixels into coordinates, with CoordConv");
  command
      .add_option("--task", arguments->task,
                  "classify: from x, y to the pixel there; regress: from a bright pixel to its x, y")
      ->check(CLI::IsMember(coord_task_names()))
      ->capture_default_str();
  command.add_option("--layer", arguments->layers, "plain convolutions or CoordConv, one or both")
      ->check(CLI::IsMember(coord_layer_names()))
      ->expected(1, -1)
      ->capture_default_str();
  command
      .add_option("--split", arguments->splits,
                  "which quarter of the places is tested on: a random one, or the upper right quadrant")
      ->check(CLI::IsMember(coord_split_names()))
      ->expected(1, -1)
      ->capture_default_str();
  command.add_option("--out", arguments->output, "table to write (.csv)");
  add_seed_options(command, arguments->seeds, arguments->network.seed);
  command
      .add_option("--epochs", arguments->network.epochs,
                  "passes over the places (default: 8 to regress; to classify 3 with CoordConv, 10 without)")
      ->check(kPositive);
  command.add_option("--batch", arguments->network.batch_size, "places in a batch")
      ->check(kPositive)
      ->capture_default_str();
  command
      .add_option("--learning-rate", arguments->network.learning_rate,
                  "of Adam, at the start (default: 0.01 with CoordConv, 0.002 without)")
      ->check(kPositive);
  command.add_option("--side", arguments->network.side, "pixels of an image along both axes")
      ->check(CLI::Range(8, 256))
      ->capture_default_str();
  command
      .add_option("--square", arguments->square,
                  "places are where a square of as many pixels lies within the image")
      ->check(kPositive)
      ->capture_default_str();
  command.callback([arguments] { run(*arguments); });
}

}  // namespace cinnabar::apps
