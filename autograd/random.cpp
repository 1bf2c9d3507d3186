#include "autograd/random.hpp"

namespace cinnabar {

Tensor random_uniform(const Shape& shape, double low, double high, const RandomSequence& sequence,
                      Device device, DType dtype) {
  CINNABAR_CHECK(low <= high, "random_uniform", "low ", low, " is not at most high ", high);
  Tensor result = Tensor::empty(shape, dtype, device);
  random_on(device).uniform(sequence, low, high, result);
  return result;
}

Tensor random_uniform(const Shape& shape, double low, double high, std::uint64_t seed, std::uint64_t stream,
                      Device device, DType dtype) {
  return random_uniform(shape, low, high, RandomSequence{seed, stream}, device, dtype);
}

Tensor random_normal(const Shape& shape, double mean, double deviation, const RandomSequence& sequence,
                     Device device, DType dtype) {
  CINNABAR_CHECK(deviation >= 0, "random_normal", "deviation ", deviation, " is negative");
  Tensor result = Tensor::empty(shape, dtype, device);
  random_on(device).normal(sequence, mean, deviation, result);
  return result;
}

Tensor random_normal(const Shape& shape, double mean, double deviation, std::uint64_t seed,
                     std::uint64_t stream, Device device, DType dtype) {
  return random_normal(shape, mean, deviation, RandomSequence{seed, stream}, device, dtype);
}

}  // namespace cinnabar
