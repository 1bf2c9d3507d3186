#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "models/training.hpp"

namespace cinnabar::registration {

/// The files of a training whose network is NAME.safetensors.
struct TrainingFiles {
  explicit TrainingFiles(const std::filesystem::path& network);
  std::filesystem::path network;
  std::filesystem::path checkpoint;  ///< NAME.checkpoint.safetensors
  std::filesystem::path table;       ///< NAME_loss.csv
  std::filesystem::path picture;     ///< NAME_loss.svg
  std::filesystem::path prepared;    ///< NAME_pairs, a folder, where a training prepares its pairs itself
};

/// What a checkpoint says besides the state of the training.
struct TrainingSettings {
  std::map<std::string, std::string> options;  ///< those that change the result, by their names: "--epochs"
  std::vector<std::string> training, validation;  ///< names of pairs
};

struct TrainingCheckpoint {
  SafeTensors state;
  TrainingSettings settings;
};

/// None where there is no such file; InputError where it is no whole checkpoint of a training of that kind
/// ("quicksilver").
std::optional<TrainingCheckpoint> read_checkpoint(const std::filesystem::path& path, const std::string& kind);

/// Throws InputError naming the first option whose value differs from the checkpoint's. The number of epochs
/// may, under a constant schedule.
void require_same_options(const TrainingCheckpoint& checkpoint,
                          const std::map<std::string, std::string>& options,
                          const std::filesystem::path& path);

/// Goes on from a checkpoint. Throws InputError naming its file where it does not fit the training.
void resume(Training& training, const TrainingCheckpoint& checkpoint, const std::filesystem::path& path);

/// Writes a network's file with these weights; notes on the training are for people.
using WriteNetwork =
    std::function<void(const SafeTensors& weights, const std::map<std::string, std::string>& notes)>;

struct TrainingRun {
  std::string kind;  ///< of network, which its checkpoints name
  TrainingFiles files;
  TrainingSettings settings;
  WriteNetwork write_network;
  double checkpoint_minutes = 5.0;
  double max_minutes = 0.0;  ///< 0: no limit
};

struct TrainingObserver {
  std::function<bool()> keep_going;  ///< asked between batches; false stops with a checkpoint
  std::function<void()> advanced;    ///< after every batch
  std::function<void(const LossPoint&)> validated;
};

enum class TrainingEnd { finished, out_of_patience, interrupted, out_of_time };

/// Trains to the end, or until the observer or the time limit stops it between two batches. At every
/// validation the loss curve is written anew, and the network where it has become better; at the end both.
/// Checkpoints are written every so many minutes and wherever it stops, the finished training's too: it can
/// go on with more epochs. All files are replaced whole.
TrainingEnd run_training(Training& training, const TrainingRun& run, const TrainingObserver& observer);

}  // namespace cinnabar::registration
