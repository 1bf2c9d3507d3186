#pragma once

#include <array>
#include <vector>

#include "data/volume_set.hpp"

namespace cinnabar {

struct PatchSamplerOptions {
  Shape patch{15, 15, 15};
  std::int64_t batch_size = 64;
  /// Draws with replacement, as the training of Quicksilver does; otherwise every place comes once in an
  /// epoch, each epoch in an order of its own.
  bool replacement = true;
  std::uint64_t seed = 0;
};

/// Batches of patches of a set of volumes, all images of a subject cut at the same place. Draw number i of
/// the whole training, and so batch k (draws k batch_size to (k + 1) batch_size - 1), is a function of the
/// seed and of nothing else: any batch can be made at any time, on any thread. An epoch is `places()` draws;
/// a batch may hold the end of one epoch and the beginning of the next, so all batches are full.
class PatchSampler {
 public:
  /// Draws among all places where a patch lies inside its volume; an axis shorter than the patch has the one
  /// place 0. With patches as large as the volumes this draws whole volumes.
  PatchSampler(VolumeSet volumes, const PatchSamplerOptions& options);
  /// Draws among the rows of `starts` [N, 4] i32 on the CPU, for example VolumeSet::foreground_starts.
  PatchSampler(VolumeSet volumes, const Tensor& starts, const PatchSamplerOptions& options);

  /// Number of places that are drawn among.
  std::int64_t places() const { return places_; }
  std::int64_t batches_per_epoch() const;

  /// Volume, z, y, x of the patches of batch k: [batch_size, 4] i32 on the CPU.
  Tensor starts(std::int64_t batch) const;
  /// Those patches, by image, on the device of the volumes.
  Batch operator()(std::int64_t batch) const;

 private:
  void check_options() const;
  /// The places of a batch.
  std::vector<std::int64_t> draw(std::int64_t batch) const;
  /// Volume, z, y, x of one place.
  std::array<std::int32_t, 4> start_of(std::int64_t place) const;

  VolumeSet volumes_;
  PatchSamplerOptions options_;
  Tensor starts_;                       ///< the list, undefined when all places are drawn among
  std::vector<std::int64_t> first_of_;  ///< without a list: number of the first place in each volume
  std::int64_t places_ = 0;
};

}  // namespace cinnabar
