#pragma once

#include "kernels/conv3d.hpp"

namespace cinnabar::cuda {

/// The ways of CUDA, each a whole table.
extern const Conv3d conv3d_direct;
extern const Conv3d conv3d_fft;
extern const Conv3d conv3d_cudnn;

}  // namespace cinnabar::cuda
