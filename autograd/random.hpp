#pragma once

#include "kernels/random.hpp"

namespace cinnabar {

/// New tensors of random numbers (kernels/random.hpp): the same seed, stream and shape give the same numbers
/// on every device. Constants: nothing flows back through them.
Tensor random_uniform(const Shape& shape, double low, double high, const RandomSequence& sequence,
                      Device device = Device::cpu(), DType dtype = DType::f32);
Tensor random_uniform(const Shape& shape, double low, double high, std::uint64_t seed, std::uint64_t stream,
                      Device device = Device::cpu(), DType dtype = DType::f32);

Tensor random_normal(const Shape& shape, double mean, double deviation, const RandomSequence& sequence,
                     Device device = Device::cpu(), DType dtype = DType::f32);
Tensor random_normal(const Shape& shape, double mean, double deviation, std::uint64_t seed,
                     std::uint64_t stream, Device device = Device::cpu(), DType dtype = DType::f32);

}  // namespace cinnabar
