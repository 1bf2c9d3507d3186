#pragma once

#include "data/volume_set.hpp"
#include "models/lddmm_matching.hpp"

namespace cinnabar {

struct PairDrawOptions {
  bool swap = false;       ///< exchange moving and fixed image of every other pair, by chance
  bool mirror = false;     ///< exchange left and right of every other pair, by chance
  std::uint64_t seed = 0;  ///< of order and chance
};

/// Images "moving" and "target" of one of the volumes, on the CPU.
ImagePair image_pair(const VolumeSet& volumes, std::int64_t volume);

/// Draws whole pairs from a VolumeSet whose x axis goes from left to right: every pair once an epoch, in a
/// random order. A draw is a function of its number and the seed.
class PairDraws {
 public:
  PairDraws(VolumeSet volumes, const PairDrawOptions& options);

  /// Pairs of an epoch.
  std::int64_t size() const { return volumes_.size(); }
  ImagePair operator()(std::int64_t draw) const;

 private:
  VolumeSet volumes_;
  PairDrawOptions options_;
};

}  // namespace cinnabar
