#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "models/training.hpp"
#include "registration/training_pairs.hpp"
#include "registration/training_run.hpp"

namespace cinnabar::apps {

// What the commands that train networks on pairs of scans have in common.

struct TrainingArguments {
  std::string pairs, validation_pairs, output;
  std::string device = "auto", schedule = "constant";
  std::optional<double> validation;  ///< share of the pairs
  bool restart = false;
  double checkpoint_minutes = 5.0, max_minutes = 0.0;
};

/// --validation and --validation-pairs.
void add_validation_options(CLI::App& command, TrainingArguments& arguments);
/// --learning-rate, --schedule, --moving-average, --validation-steps and --patience.
void add_rate_options(CLI::App& command, TrainingArguments& arguments, TrainingOptions& training);
/// --out, --device, --checkpoint-minutes, --max-minutes and --restart.
void add_run_options(CLI::App& command, TrainingArguments& arguments);

RateSchedule schedule_of(const TrainingArguments& arguments);

/// Which pairs validate: those of --validation-pairs, else what the list says, else a share.
registration::TrainingSplit split_pairs(std::vector<registration::TrainingPair> pairs,
                                        const TrainingArguments& arguments, std::uint64_t seed);
std::vector<std::string> names_of(const std::vector<registration::TrainingPair>& pairs);
/// Throws InputError where a checkpoint was trained and validated on other pairs.
void require_same_pairs(const registration::TrainingSplit& split,
                        const registration::TrainingSettings& before, const TrainingArguments& arguments);

void print_split(const registration::TrainingSplit& split);
void print_end(const Training& training, const registration::TrainingFiles& files,
               registration::TrainingEnd end);

}  // namespace cinnabar::apps
