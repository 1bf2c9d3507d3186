#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "models/quicksilver_file.hpp"
#include "registration/cohort.hpp"
#include "registration/registration.hpp"

namespace cinnabar::registration {

/// What a cohort's momenta are made with.
struct MomentaOptions {
  /// `preparation.head_voxels` and `levels` as everywhere; the matching is in voxels of the grid.
  RegistrationOptions registration;
  double spacing_mm = 0.0;  ///< the grid's nominal spacing, kept with the momenta
  /// Every pair is matched again that many times after both of its images were deformed by random geodesics
  /// of the same metric, each image by its own: more anatomies from few subjects.
  int augmentations = 0;
  double augmentation_voxels = 1.5;  ///< root mean square displacement of those
  std::uint64_t seed = 0;
  int shard = 1;  ///< of `shards`: the pairs whose place in the list is shard - 1 modulo shards
  int shards = 1;
};

/// One job of a cohort: a pair as it is (augmentation 0) or deformed.
struct MomentumJob {
  PairEntry pair;
  int augmentation = 0;
  std::string name() const {
    return augmentation == 0 ? pair.name : pair.name + "_a" + std::to_string(augmentation);
  }
};

struct MomentumReport {
  double ncc_affine = 0.0;
  double ncc = 0.0;
  double seconds = 0.0;
};

struct MomentaObserver {
  std::function<void(const MomentumJob&, std::size_t index, std::size_t jobs)> begin;
  std::function<void(const MomentumJob&, const MomentumReport&)> done;
  std::function<void(const MomentumJob&, const std::string& reason)> failed;
  std::function<bool()> keep_going;
};

struct MomentaTotals {
  std::size_t made = 0;
  std::size_t kept = 0;  ///< found finished
  std::size_t failed = 0;
};

/// Matches every pair and writes, per job, NAME.safetensors with `moving` and `target` [1, 1, D, H, W] as
/// they were matched and `momentum` [1, 3, D, H, W], f32, and then NAME.json, the record; a job whose record
/// exists is done. momenta.json holds what all jobs share; when it does not agree with the options,
/// InputError says where. A pair that fails is reported and leaves nothing; the others go on. `keep_going`
/// returning false throws InterruptedRun with the present pair left out.
MomentaTotals make_momenta(const std::vector<PairEntry>& pairs, const std::filesystem::path& folder,
                           const MomentaOptions& options, const MomentaObserver& observer);

/// The model that the momenta of such a folder were made by. Throws InputError.
MomentumModel read_momentum_model(const std::filesystem::path& folder);

}  // namespace cinnabar::registration
