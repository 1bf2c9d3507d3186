#pragma once

#include "data/volume_set.hpp"
#include "models/lddmm_matching.hpp"

namespace cinnabar {

struct PairDrawOptions {
  bool swap = false;       ///< exchange moving and fixed image of every other pair, by chance
  bool mirror = false;     ///< exchange left and right of every other pair, by chance
  std::uint64_t seed = 0;  ///< of order and chance
};

/// All images of one of the volumes, on the CPU.
Batch whole_volume(const VolumeSet& volumes, std::int64_t volume);

/// "moving" and "target" of a batch, on a device.
ImagePair image_pair(const Batch& images, Device device);

/// Draws whole pairs from a VolumeSet whose x axis goes from left to right, with images "moving", "target"
/// and maybe "momentum": every pair once an epoch, in a random order. Exchanged pairs come without a
/// momentum. A draw is a function of its number and the seed.
class PairDraws {
 public:
  PairDraws(VolumeSet volumes, const PairDrawOptions& options);

  /// Pairs of an epoch.
  std::int64_t size() const { return volumes_.size(); }
  Batch operator()(std::int64_t draw) const;

 private:
  VolumeSet volumes_;
  PairDrawOptions options_;
};

}  // namespace cinnabar
