#pragma once

#include "kernels/conv3d.hpp"

namespace cinnabar::cuda {

/// The ways of CUDA, each a whole table.
extern const Conv3d conv3d_direct;
extern const Conv3d conv3d_mma;
extern const Conv3d conv3d_fft;
extern const Conv3d conv3d_cudnn;

/// Whether conv3d_mma computes a precision on a device: it has the instructions, and the build the code.
bool conv3d_has_mma(Device device, Conv3dPrecision precision);

}  // namespace cinnabar::cuda
