#pragma once

#include "kernels/op.hpp"

namespace cinnabar {

/// The place of a tensor's first number in a sequence that `seed` and `stream` name. Element i (row-major)
/// takes number offset + i, so a tensor filled in pieces equals one filled at once.
struct RandomSequence {
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;
  std::uint64_t offset = 0;  ///< at most 2^62
};

/// Random fills of a tensor of any shape, from Philox 4x32-10 (engine/random.hpp): number n is word n % 4 of
/// counter n / 4. The numbers depend on nothing else: not on the device, the number of threads or the launch.
/// f32 and f64 on the CPU, f32 on CUDA. Both dtypes draw the same 24 or 32 random bits a number, so an f64
/// tensor agrees with the f32 one up to the rounding of f32. All outputs are assigned.
struct Random {
  /// low + (high - low) u with u a multiple of 2^-24 in [0, 1); rounding can give `high` itself. CPU and CUDA
  /// agree bit by bit.
  void (*uniform)(const RandomSequence& sequence, double low, double high, Tensor& output);
  /// mean + deviation z, z standard normal with |z| < 6.77 (Box and Muller, "A note on the generation of
  /// random normal deviates", 1958; numbers 2k and 2k + 1 are the cosine and sine of one pair). CPU and CUDA
  /// agree to the rounding of a few float operations.
  void (*normal)(const RandomSequence& sequence, double mean, double deviation, Tensor& output);
};

CINNABAR_OP(Random, random);

}  // namespace cinnabar
