#include "apps/training_options.hpp"

#include <fmt/core.h>

#include <algorithm>

#include "apps/number_checks.hpp"

namespace cinnabar::apps {

namespace {

using namespace registration;

constexpr double kValidationShare = 0.1;

}  // namespace

void add_validation_options(CLI::App& command, TrainingArguments& arguments) {
  command
      .add_option(
          "--validation", arguments.validation,
          "share of the pairs to validate with, of subjects that are not trained on; 0: none (default: "
          "as the list's column split says, else 0.1)")
      ->check(number_in(0.0, 0.9));
  command.add_option("--validation-pairs", arguments.validation_pairs,
                     "file with the names of the pairs to validate with, one a line");
}

void add_rate_options(CLI::App& command, TrainingArguments& arguments, TrainingOptions& training) {
  command.add_option("--learning-rate", training.learning_rate, "of Adam")
      ->check(kPositive)
      ->capture_default_str();
  command.add_option("--schedule", arguments.schedule, "of the learning rate: constant, or cosine down to 0")
      ->check(CLI::IsMember({"constant", "cosine"}))
      ->capture_default_str();
  command
      .add_option("--moving-average", training.moving_average,
                  "decay, such as 0.999: validate and keep averaged weights")
      ->check(number_in(0.0, 1.0))
      ->capture_default_str();
  command
      .add_option("--validation-steps", training.validation_steps,
                  "batches between validations (0: an epoch)")
      ->check(kNonNegative)
      ->capture_default_str();
  command
      .add_option("--patience", training.patience,
                  "stop after so many validations without improvement (0: never)")
      ->check(kNonNegative)
      ->capture_default_str();
}

void add_run_options(CLI::App& command, TrainingArguments& arguments) {
  command.add_option("--out,--output,-o", arguments.output, "network to write (.safetensors)")->required();
  command.add_option("--device", arguments.device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  command
      .add_option("--checkpoint-minutes", arguments.checkpoint_minutes,
                  "a kill loses at most so much of the work")
      ->check(kNonNegative)
      ->capture_default_str();
  command
      .add_option("--max-minutes", arguments.max_minutes,
                  "stop with a checkpoint after so long; the same command goes on (0: no limit)")
      ->check(kNonNegative)
      ->capture_default_str();
  command.add_flag("--restart", arguments.restart, "begin anew although there is a checkpoint");
}

RateSchedule schedule_of(const TrainingArguments& arguments) {
  return arguments.schedule == "cosine" ? RateSchedule::cosine : RateSchedule::constant;
}

TrainingSplit split_pairs(std::vector<TrainingPair> pairs, const TrainingArguments& arguments,
                          std::uint64_t seed) {
  if (!arguments.validation_pairs.empty()) {
    name_validation_pairs(pairs, arguments.validation_pairs);
    return split_as_named(pairs);
  }
  const bool named = std::any_of(pairs.begin(), pairs.end(), [](const TrainingPair& pair) {
    return pair.split != PairSplit::unspecified;
  });
  if (named && !arguments.validation) return split_as_named(pairs);
  return split_by_subjects(std::move(pairs), arguments.validation.value_or(kValidationShare), seed);
}

std::vector<std::string> names_of(const std::vector<TrainingPair>& pairs) {
  std::vector<std::string> names;
  for (const TrainingPair& pair : pairs) names.push_back(pair.name);
  return names;
}

void require_same_pairs(const TrainingSplit& split, const TrainingSettings& before,
                        const TrainingArguments& arguments) {
  if (names_of(split.training) == before.training && names_of(split.validation) == before.validation) return;
  fail_input(arguments.pairs, ": names other pairs than the checkpoint has, ", before.training.size(),
             " to train on and ", before.validation.size(),
             " to validate with: give the list as it was to go on, or --restart to begin anew");
}

void print_split(const TrainingSplit& split) {
  fmt::print("pairs       {} to train on, {} to validate with", split.training.size(),
             split.validation.size());
  if (split.left_out > 0) fmt::print(", {} left out", split.left_out);
  if (split.shared > 0) fmt::print("; {} of the latter share a subject with the former", split.shared);
  fmt::print("\n");
}

void print_end(const Training& training, const TrainingFiles& files, TrainingEnd end) {
  if (training.best().step > 0) {
    fmt::print("validation  {:.4f} of predicting zero, after epoch {:.2f}\n",
               training.best().validation.ratio, training.best().epoch);
  }
  if (end == TrainingEnd::out_of_time) {
    fmt::print("stopped after --max-minutes at batch {} of {}; the same command goes on from {}\n",
               training.step(), training.total_steps(), files.checkpoint.string());
    return;
  }
  if (end == TrainingEnd::out_of_patience) fmt::print("stopped early after batch {}\n", training.step());
  fmt::print("written     {}, {}, {}\n", files.network.string(), files.table.string(),
             files.picture.string());
}

}  // namespace cinnabar::apps
