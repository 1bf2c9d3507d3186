#pragma once

#include <functional>

#include "models/quicksilver_file.hpp"
#include "registration/training_pairs.hpp"

namespace cinnabar::registration {

/// The folder beside the momenta where the lessons of a correction network lie. Its name holds a checksum of
/// the prediction network's file, so that another network's lessons are never taken for this one's.
std::filesystem::path correction_folder(const std::filesystem::path& momenta,
                                        const std::filesystem::path& network);

struct CorrectionObserver {
  std::function<bool()> keep_going;
  std::function<void(std::size_t done, std::size_t all)> made;
};

/// Makes the lesson (models/quicksilver_correction.hpp) of every pair that does not lie in the folder yet,
/// and lets the pairs' volumes point there. Each file appears whole, so a run that was stopped goes on. False
/// where the observer stopped it. Throws InputError naming the pair whose prediction cannot be shot.
bool make_correction_lessons(std::vector<TrainingPair>& pairs, const std::filesystem::path& folder,
                             Quicksilver& prediction, const MomentumModel& model,
                             const CorrectionObserver& observer);

}  // namespace cinnabar::registration
