#include "models/quicksilver_widen.hpp"

#include <string>

#include "engine/random.hpp"
#include "kernels/random_math.hpp"

namespace cinnabar {

namespace {

constexpr std::uint64_t kProportions = std::uint64_t{0x7769646E} << 32;  // stream of the seed
constexpr double kSpread = 0.5;  // a copy's share before they are made to add up to 1: 1 +- this

/// Uniform numbers of [1 - kSpread, 1 + kSpread), one after the other.
class Shares {
 public:
  explicit Shares(std::uint64_t seed) : seed_(seed) {}
  double next() {
    const PhiloxWords words = philox_4x32_10(seed_, kProportions, counter_++);
    return 1.0 + kSpread * (2.0 * uniform_from_bits(words.word[0]) - 1.0);
  }

 private:
  std::uint64_t seed_, counter_ = 0;
};

/// A tensor with the shape of `like`: out of a bias or PReLU's weight repeated, out of a convolution's weight
/// repeated along the channels written and shared out along those read (axis 0 of transposed ones, else 1).
Tensor widened(const std::string& name, const Tensor& narrow, const Tensor& like, Shares& shares) {
  Tensor wide = Tensor::empty(like.shape());
  const float* from = narrow.data<float>();
  float* to = wide.data<float>();
  if (like.rank() == 1) {
    const std::int64_t copies = like.numel() / narrow.numel();
    for (std::int64_t i = 0; i < like.numel(); ++i) to[i] = from[i / copies];
    return wide;
  }
  const int read = name.find("conv_unpooling") != std::string::npos ? 0 : 1;
  const std::int64_t rows = like.shape(0), columns = like.shape(1);
  const std::int64_t taps = like.numel() / (rows * columns);
  const std::int64_t down = rows / narrow.shape(0), across = columns / narrow.shape(1);
  const std::int64_t copies = read == 0 ? down : across;
  std::vector<double> share(static_cast<std::size_t>(rows * columns));
  // Neighbours along the axis that is read are the copies of one channel.
  const auto at = [&](std::int64_t writes, std::int64_t reads) {
    return static_cast<std::size_t>(read == 0 ? reads * columns + writes : writes * columns + reads);
  };
  for (std::int64_t writes = 0; writes < (read == 0 ? columns : rows); ++writes) {
    for (std::int64_t first = 0; first < (read == 0 ? rows : columns); first += copies) {
      double sum = 0.0;
      for (std::int64_t k = 0; k < copies; ++k) sum += share[at(writes, first + k)] = shares.next();
      for (std::int64_t k = 0; k < copies; ++k) share[at(writes, first + k)] /= sum;
    }
  }
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j, to += taps) {
      const float* taps_from = from + (i / down * narrow.shape(1) + j / across) * taps;
      const double factor = share[static_cast<std::size_t>(i * columns + j)];
      for (std::int64_t t = 0; t < taps; ++t)
        to[t] = static_cast<float>(factor * static_cast<double>(taps_from[t]));
    }
  }
  return wide;
}

}  // namespace

std::unique_ptr<Quicksilver> widened(const Quicksilver& narrow, std::int64_t features, std::uint64_t seed) {
  QuicksilverOptions options = narrow.options();
  if (features < options.features || features % options.features != 0) {
    fail_input("a network of ", options.features, " features cannot be widened to ", features,
               ": ask for a multiple");
  }
  options.features = features;
  auto wide = std::make_unique<Quicksilver>(options);
  const SafeTensors weights = narrow.state();
  SafeTensors state = wide->state();
  Shares shares(seed);
  for (auto& [name, tensor] : state.tensors) tensor = widened(name, weights.tensors.at(name), tensor, shares);
  wide->load_state(state);
  return wide;
}

}  // namespace cinnabar
