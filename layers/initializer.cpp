#include "layers/initializer.hpp"

#include <cmath>

#include "autograd/random.hpp"

namespace cinnabar {

namespace {

Tensor uniform_within(const Shape& shape, double bound, Generator& generator) {
  return random_uniform(shape, -bound, bound, generator.take(shape.numel()));
}

}  // namespace

std::int64_t fan_in(const Shape& weight) {
  CINNABAR_CHECK(weight.rank() >= 2 && weight.numel() > 0, "initializer",
                 "weight must be [out, in, ...], got ", weight);
  return weight.numel() / weight[0];
}

Tensor uniform_by_fan(const Shape& shape, std::int64_t fan, Generator& generator) {
  CINNABAR_CHECK(fan > 0, "initializer", "fan ", fan, " must be positive");
  return uniform_within(shape, 1.0 / std::sqrt(static_cast<double>(fan)), generator);
}

Tensor kaiming_normal(const Shape& weight, Generator& generator, double slope) {
  const double deviation = std::sqrt(2.0 / ((1.0 + slope * slope) * static_cast<double>(fan_in(weight))));
  return random_normal(weight, 0.0, deviation, generator.take(weight.numel()));
}

Tensor xavier_uniform(const Shape& weight, Generator& generator) {
  const auto in = static_cast<double>(fan_in(weight));
  const auto out = static_cast<double>(weight.numel() / weight[1]);
  return uniform_within(weight, std::sqrt(6.0 / (in + out)), generator);
}

}  // namespace cinnabar
