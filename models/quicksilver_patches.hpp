#pragma once

#include "data/patch_sampler.hpp"
#include "data/volume_set.hpp"

namespace cinnabar {

/// Where the patches of a training lie. Both kinds start from the places of the grid that are not background
/// in the moving and the target image together.
enum class PatchPlaces {
  grid,      ///< those places, as in the original
  anywhere,  ///< those places, each shifted by up to half a stride along every axis, within the volume: all
             ///< positions become about equally likely, which makes more of few subjects
};

struct QuicksilverPatchOptions {
  PatchGrid grid;
  std::int64_t batch_size = 64;
  PatchPlaces places = PatchPlaces::grid;
  bool mirror = false;     ///< exchanges left and right (the x axis) of every other patch, by chance
  double intensity = 0.0;  ///< A, below 1: how much intensities vary
  std::uint64_t seed = 0;
};

/// Batches to train Quicksilver on, from pairs of "moving" [V, 1, D, H, W], "target" (the same) and
/// "momentum" [V, 3, D, H, W] on the CPU: "images" [N, 2, d, h, w] (moving, target) and "momentum"
/// [N, 3, d, h, w]. Places are drawn with replacement; an epoch is as many draws as there are places.
///
/// Intensities vary as x -> x^g for x > 0, with one g in [1 - A, 1 + A] for both images of a patch: their
/// histograms are matched, so changing each on its own would ask for another momentum. Noise with the
/// deviation A / 20 is then added where there is signal, to each image its own.
///
/// Draw i of a training, with all that is done to its patch, is a function of the seed and of i alone, the
/// same on every device; so is batch k, which makes this the source of a DataLoader.
class QuicksilverPatches {
 public:
  /// Throws Error where the volumes are not of the kind above, InputError where all are background.
  QuicksilverPatches(VolumeSet pairs, const QuicksilverPatchOptions& options);

  std::int64_t places() const { return sampler_.places(); }
  std::int64_t batches_per_epoch() const { return sampler_.batches_per_epoch(); }
  Batch operator()(std::int64_t batch) const;

 private:
  void shift(std::int64_t batch, Tensor& starts) const;
  void mirror(std::int64_t batch, Batch& patches) const;
  void vary(std::int64_t batch, Tensor& images) const;

  VolumeSet pairs_;
  QuicksilverPatchOptions options_;
  PatchSampler sampler_;
};

/// The places of the grid that are not background in the moving and the target image together.
Tensor quicksilver_places(const VolumeSet& pairs, const PatchGrid& grid);

/// The patches at `starts` as they are: "images" and "momentum" as above.
Batch quicksilver_patches(const VolumeSet& pairs, const Tensor& starts, const Shape& patch);

/// Exchanges left and right of row n of patches [N, C, d, h, w] in place: the x axis is reversed, and of
/// vectors (C = 3: x, y, z) the x component changes its sign.
void mirror_left_right(Tensor& patches, std::int64_t n);

}  // namespace cinnabar
