#include "data/patch_sampler.hpp"

#include <algorithm>
#include <iterator>
#include <limits>

#include "data/permutation.hpp"

namespace cinnabar {

namespace {

constexpr const char* kOp = "patch_sampler";

// Streams of the seed: one for draws with replacement, and one for the order of each epoch, from kOrder on.
constexpr std::uint64_t kDraws = std::uint64_t{0x706C6163} << 32;
constexpr std::uint64_t kOrder = std::uint64_t{0x6F726465} << 32;

/// Number of places of a patch along an axis.
std::int64_t places_along(std::int64_t extent, std::int64_t patch) {
  return std::max<std::int64_t>(extent - patch + 1, 1);
}

}  // namespace

PatchSampler::PatchSampler(VolumeSet volumes, const PatchSamplerOptions& options)
    : volumes_(std::move(volumes)), options_(options) {
  check_options();
  for (std::int64_t volume = 0; volume < volumes_.size(); ++volume) {
    const Shape spatial = volumes_.spatial(volume);
    std::int64_t count = 1;
    for (int axis = 0; axis < 3; ++axis) count *= places_along(spatial[axis], options_.patch[axis]);
    first_of_.push_back(places_);
    places_ += count;
  }
}

PatchSampler::PatchSampler(VolumeSet volumes, const Tensor& starts, const PatchSamplerOptions& options)
    : volumes_(std::move(volumes)), options_(options) {
  check_options();
  CINNABAR_CHECK(starts.defined() && starts.rank() == 2 && starts.shape(1) == 4 && starts.device().is_cpu(),
                 kOp, "starts must be [N, 4] on the CPU, got ", starts);
  require_dtype(kOp, starts, DType::i32);
  places_ = starts.shape(0);
  CINNABAR_CHECK(places_ > 0, kOp, "the list of starts is empty");
  starts_ = starts.clone();
  for (std::int64_t n = 0; n < places_; ++n) {
    const std::int32_t volume = starts_.data<std::int32_t>()[4 * n];
    CINNABAR_CHECK(volume >= 0 && volume < volumes_.size(), kOp, "start ", n, " lies in volume ", volume,
                   " of ", volumes_.size());
  }
}

void PatchSampler::check_options() const {
  CINNABAR_CHECK(options_.patch.rank() == 3 && options_.patch.numel() > 0, kOp,
                 "patch must be three positive extents, got ", options_.patch);
  CINNABAR_CHECK(options_.batch_size > 0, kOp, "batch size ", options_.batch_size, " must be positive");
}

std::int64_t PatchSampler::batches_per_epoch() const {
  return (places_ + options_.batch_size - 1) / options_.batch_size;
}

std::vector<std::int64_t> PatchSampler::draw(std::int64_t batch) const {
  const auto count = static_cast<std::uint64_t>(places_);
  const auto size = static_cast<std::uint64_t>(options_.batch_size);
  const std::uint64_t first = static_cast<std::uint64_t>(batch) * size;
  std::vector<std::int64_t> drawn;
  if (options_.replacement) {
    for (std::uint64_t number = first; number < first + size; ++number) {
      const PhiloxWords words = philox_4x32_10(options_.seed, kDraws, number);
      const std::uint64_t bits = std::uint64_t{words.word[1]} << 32 | words.word[0];
      drawn.push_back(static_cast<std::int64_t>(bits % count));  // uneven by count / 2^64: nothing to notice
    }
    return drawn;
  }
  for (std::uint64_t number = first; number < first + size;) {
    const std::uint64_t epoch = number / count;
    const Permutation order(count, options_.seed, kOrder + epoch);
    const std::uint64_t end = std::min(first + size, (epoch + 1) * count);
    for (; number < end; ++number) drawn.push_back(static_cast<std::int64_t>(order(number % count)));
  }
  return drawn;
}

std::array<std::int32_t, 4> PatchSampler::start_of(std::int64_t place) const {
  std::array<std::int32_t, 4> start{};
  if (starts_.defined()) {
    std::copy_n(starts_.data<std::int32_t>() + 4 * place, 4, start.begin());
    return start;
  }
  const auto behind = std::upper_bound(first_of_.begin(), first_of_.end(), place);
  const std::int64_t volume = behind - first_of_.begin() - 1;
  const Shape spatial = volumes_.spatial(volume);
  std::int64_t rest = place - *std::prev(behind);
  for (int axis = 2; axis >= 0; --axis) {
    const std::int64_t along = places_along(spatial[axis], options_.patch[axis]);
    start[static_cast<std::size_t>(axis) + 1] = static_cast<std::int32_t>(rest % along);
    rest /= along;
  }
  start[0] = static_cast<std::int32_t>(volume);
  return start;
}

Tensor PatchSampler::starts(std::int64_t batch) const {
  CINNABAR_CHECK(batch >= 0 && batch < std::numeric_limits<std::int64_t>::max() / options_.batch_size - 1,
                 kOp, "there is no batch ", batch);
  Tensor table = Tensor::empty({options_.batch_size, 4}, DType::i32);
  std::int32_t* row = table.data<std::int32_t>();
  for (const std::int64_t place : draw(batch)) {
    const std::array<std::int32_t, 4> start = start_of(place);
    row = std::copy(start.begin(), start.end(), row);
  }
  return table;
}

Batch PatchSampler::operator()(std::int64_t batch) const {
  return volumes_.gather(starts(batch), options_.patch);
}

}  // namespace cinnabar
