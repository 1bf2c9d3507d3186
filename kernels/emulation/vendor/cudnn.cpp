// The emulator has nothing in cuDNN's place.

#include "kernels/cuda/vendor/cudnn.hpp"

#include "engine/error.hpp"

namespace cinnabar::cuda::vendor {

bool has_cudnn() {
  return false;
}

void run(CudnnPass, const CudnnConvolution&, const float*, const float*, float*, Device) {
  fail("conv3d", "the emulator has no cuDNN");
}

}  // namespace cinnabar::cuda::vendor
