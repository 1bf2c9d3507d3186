#pragma once

#include <cstdint>

#include "engine/device.hpp"

namespace cinnabar::cuda::vendor {

/// A batch of contiguous real volumes [batch, d, h, w] and their half spectra [batch, d, h, w / 2 + 1] of
/// interleaved complex numbers.
struct FftShape {
  std::int64_t batch, d, h, w;

  friend auto operator<=>(const FftShape&, const FftShape&) = default;
};

/// Unnormalised 3-D transforms in float32 on the current stream of the device. `fft_inverse` overwrites the
/// spectrum. Both pointers must be aligned to 8 bytes.
void fft_forward(Device device, const FftShape& shape, const float* real, float* spectrum);
void fft_inverse(Device device, const FftShape& shape, float* spectrum, float* real);

}  // namespace cinnabar::cuda::vendor
