#include "models/quicksilver_patches.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>

#include "engine/random.hpp"
#include "kernels/random.hpp"

namespace cinnabar {

namespace {

constexpr const char* kOp = "quicksilver_patches";
constexpr double kNoiseShare = 0.05;  ///< deviation of the noise for intensity 1

// Streams of the seed. Word w of counter i belongs to draw i.
constexpr std::uint64_t kShift = std::uint64_t{0x73686966} << 32;
constexpr std::uint64_t kMirror = std::uint64_t{0x6D697272} << 32;
constexpr std::uint64_t kGamma = std::uint64_t{0x67616D6D} << 32;
constexpr std::uint64_t kNoise = std::uint64_t{0x6E6F6973} << 32;

PatchSampler sampler_of(const VolumeSet& pairs, const QuicksilverPatchOptions& options) {
  const Tensor starts = quicksilver_places(pairs, options.grid);
  if (starts.shape(0) == 0) fail_input("the pairs have no patch that is not background");
  PatchSamplerOptions sampling;
  sampling.patch = options.grid.patch;
  sampling.batch_size = options.batch_size;
  sampling.seed = options.seed;
  return PatchSampler(pairs, starts, sampling);
}

}  // namespace

Tensor quicksilver_places(const VolumeSet& pairs, const PatchGrid& grid) {
  return pairs.foreground_starts({"moving", "target"}, grid);
}

Batch quicksilver_patches(const VolumeSet& pairs, const Tensor& starts, const Shape& patch) {
  const Batch cut = pairs.gather(starts, patch);
  const auto channels = [&](const char* name, std::int64_t count) -> const Tensor& {
    const auto found = cut.find(name);
    CINNABAR_CHECK(found != cut.end(), kOp, "the pairs have no volume '", name, "'");
    CINNABAR_CHECK(found->second.shape(1) == count && found->second.dtype() == DType::f32, kOp, "'", name,
                   "' needs ", count, " channels of f32, got ", found->second);
    return found->second;
  };
  const Tensor &moving = channels("moving", 1), &target = channels("target", 1);
  CINNABAR_CHECK(moving.device().is_cpu(), kOp, "takes volumes on the CPU, got ", moving);
  Tensor images = Tensor::empty(moving.shape().with(1, 2));
  const std::int64_t voxels = patch.numel();
  for (std::int64_t n = 0; n < starts.shape(0); ++n) {
    float* row = images.data<float>() + 2 * n * voxels;
    std::copy_n(moving.data<float>() + n * voxels, voxels, row);
    std::copy_n(target.data<float>() + n * voxels, voxels, row + voxels);
  }
  return {{"images", images}, {"momentum", channels("momentum", 3)}};
}

void mirror_left_right(Tensor& patches, std::int64_t n) {
  CINNABAR_CHECK(patches.rank() == 5 && n >= 0 && n < patches.shape(0), kOp, "there is no patch ", n, " of ",
                 patches);
  const std::int64_t channels = patches.shape(1), width = patches.shape(4);
  const std::int64_t voxels = patches.numel() / (patches.shape(0) * channels);
  float* first = patches.data<float>() + n * channels * voxels;
  for (float* row = first; row != first + channels * voxels; row += width) std::reverse(row, row + width);
  if (channels == 3) std::transform(first, first + voxels, first, std::negate<>());
}

QuicksilverPatches::QuicksilverPatches(VolumeSet pairs, const QuicksilverPatchOptions& options)
    : pairs_(std::move(pairs)), options_(options), sampler_(sampler_of(pairs_, options)) {
  CINNABAR_CHECK(options.intensity >= 0.0 && options.intensity < 1.0, kOp, "intensity ", options.intensity,
                 " is not in [0, 1)");
  quicksilver_patches(pairs_, sampler_.starts(0).rows(0, 1), options.grid.patch);  // checks the volumes
}

Batch QuicksilverPatches::operator()(std::int64_t batch) const {
  Tensor starts = sampler_.starts(batch);
  if (options_.places == PatchPlaces::anywhere) shift(batch, starts);
  Batch patches = quicksilver_patches(pairs_, starts, options_.grid.patch);
  if (options_.mirror) mirror(batch, patches);
  if (options_.intensity > 0.0) vary(batch, patches.at("images"));
  return patches;
}

void QuicksilverPatches::shift(std::int64_t batch, Tensor& starts) const {
  std::int32_t* row = starts.data<std::int32_t>();
  for (std::int64_t n = 0; n < options_.batch_size; ++n, row += 4) {
    const auto draw = static_cast<std::uint64_t>(batch * options_.batch_size + n);
    const PhiloxWords words = philox_4x32_10(options_.seed, kShift, draw);
    const Shape spatial = pairs_.spatial(row[0]);
    for (int axis = 0; axis < 3; ++axis) {
      const std::int64_t reach = options_.grid.stride[axis] / 2;
      const std::int64_t by = static_cast<std::int64_t>(words.word[axis]) % (2 * reach + 1) - reach;
      const std::int64_t last = std::max<std::int64_t>(spatial[axis] - options_.grid.patch[axis], 0);
      row[axis + 1] = static_cast<std::int32_t>(std::clamp<std::int64_t>(row[axis + 1] + by, 0, last));
    }
  }
}

void QuicksilverPatches::mirror(std::int64_t batch, Batch& patches) const {
  for (std::int64_t n = 0; n < options_.batch_size; ++n) {
    const auto draw = static_cast<std::uint64_t>(batch * options_.batch_size + n);
    if ((philox_4x32_10(options_.seed, kMirror, draw).word[0] & 1u) == 0) continue;
    for (auto& [name, tensor] : patches) mirror_left_right(tensor, n);
  }
}

void QuicksilverPatches::vary(std::int64_t batch, Tensor& images) const {
  Tensor noise = Tensor::empty_like(images);
  const std::int64_t first = batch * options_.batch_size, numbers = images.numel() / options_.batch_size;
  random_on(Device::cpu())
      .normal({options_.seed, kNoise, static_cast<std::uint64_t>(first * numbers)}, 0.0,
              kNoiseShare * options_.intensity, noise);
  float* value = images.data<float>();
  const float* added = noise.data<float>();
  for (std::int64_t n = 0; n < options_.batch_size; ++n) {
    const PhiloxWords words = philox_4x32_10(options_.seed, kGamma, static_cast<std::uint64_t>(first + n));
    const double unit = uniform_from_bits(words.word[0]);
    const auto gamma = static_cast<float>(1.0 + options_.intensity * (2.0 * unit - 1.0));
    for (std::int64_t i = 0; i < numbers; ++i, ++value, ++added) {
      if (*value > 0.0f) *value = std::pow(*value, gamma) + *added;
    }
  }
}

}  // namespace cinnabar
