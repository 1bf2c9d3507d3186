#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/volume_set.hpp"
#include "registration/cohort.hpp"

namespace cinnabar::registration {

/// A finished momentum of registration/momenta.hpp: that of a pair, or of a deformed copy of it.
struct TrainingPair {
  std::string name;
  std::filesystem::path volumes;  ///< moving, target and momentum
  std::string moving, fixed;      ///< the scans, which tell subjects apart; empty where the record lacks them
  bool copy = false;              ///< deformed at random: to be trained on, but not to validate with
  PairSplit split = PairSplit::unspecified;
};

/// All that are finished in a folder, by name. Throws InputError where there are none.
std::vector<TrainingPair> finished_pairs(const std::filesystem::path& momenta);

/// Those of a list of pairs, with the copies that there are, in the list's order. Pairs without a finished
/// momentum throw one InputError that counts them, or are left out where they may be.
std::vector<TrainingPair> finished_pairs(const std::filesystem::path& momenta,
                                         const std::filesystem::path& list, bool skip_missing);

/// Which pairs are trained on and which measure how well that went.
struct TrainingSplit {
  std::vector<TrainingPair> training, validation;
  std::int64_t left_out =
      0;                    ///< pairs of a validation with a training subject, and copies of validation pairs
  std::int64_t shared = 0;  ///< validation pairs with a subject that is trained on
};

/// The split that the list names; pairs of which it says nothing are trained on.
TrainingSplit split_as_named(const std::vector<TrainingPair>& pairs);

/// Validates on about that share of the pairs, at least one, drawn by the seed so that no subject is on both
/// sides: subjects are set aside one by one, pairs among them validate and pairs of them with others are left
/// out. Scans that are in every pair, such as an atlas, count for neither side. Where that leaves nothing to
/// train or validate on, or nobody says the subjects, single pairs are set aside instead. 0: none.
TrainingSplit split_by_subjects(std::vector<TrainingPair> pairs, double share, std::uint64_t seed);

/// The split of a training that goes on: pairs by their names. Others, finished since, are left out. Throws
/// InputError where one is no longer there.
TrainingSplit split_as_before(const std::vector<TrainingPair>& pairs,
                              const std::vector<std::string>& training,
                              const std::vector<std::string>& validation);

/// Names, one a line; empty lines and what follows a # are passed over. Throws InputError where a name is no
/// pair's.
void name_validation_pairs(std::vector<TrainingPair>& pairs, const std::filesystem::path& list);

/// What a network is trained on: the pairs' volumes on disk, or copies in memory with momenta smoothed by a
/// Gaussian of so many voxels.
VolumeSet training_volumes(const std::vector<TrainingPair>& pairs, double smoothing_voxels);

}  // namespace cinnabar::registration
