#pragma once

// The one way a kernel is launched and checked. The same .cu file compiles two ways: by nvcc for a GPU, and
// as host C++ against kernels/emulation, where a thread of a block is a fiber and memory is host memory.
// Kernels therefore keep to a few rules:
//   - shared memory is declared with CINNABAR_SHARED(type, name, count) and passed on as SharedPointer<type>;
//     its words are read into a named type (`const float x = tile[i];`, not `auto`);
//   - a kernel is started with launch(), never with <<<>>>;
//   - shuffles, ballots and atomics are the CUDA intrinsics (the emulator defines the same names);
//   - device-only helpers are marked __device__, helpers shared with the CPU path CINNABAR_HD.

#ifdef CINNABAR_EMULATED
#include "kernels/emulation/cuda.hpp"
#else
#include <cuda_runtime.h>
#define CINNABAR_SHARED(type, name, count) __shared__ type name[count]
#endif

#include <cstdint>
#include <limits>

#include "engine/cuda_check.hpp"
#include "engine/stream.hpp"
#include "engine/tensor.hpp"

namespace cinnabar::cuda {

/// What CINNABAR_SHARED(T, name, count) decays to, for the parameters of device functions.
#ifdef CINNABAR_EMULATED
template <class T>
using SharedPointer = emulation::SharedElement<T>*;
#else
template <class T>
using SharedPointer = T*;
#endif

struct LaunchShape {
  dim3 grid;
  dim3 block;
};

/// Enough blocks of `block` threads for one thread per element of a 1-D range.
inline LaunchShape cover(std::int64_t elements, int block = 256) {
  const std::int64_t blocks = (elements + block - 1) / block;
  CINNABAR_CHECK(blocks <= std::numeric_limits<std::int32_t>::max(), "launch", elements,
                 " elements need too many blocks");
  return {dim3(static_cast<unsigned>(blocks < 1 ? 1 : blocks)), dim3(static_cast<unsigned>(block))};
}

/// The same for each of `rows` rows, in blockIdx.y; a launch has at most 65535 of those, so a kernel walks on
/// from its row in steps of gridDim.y.
inline LaunchShape cover_rows(std::int64_t elements, std::int64_t rows, int block = 256) {
  constexpr std::int64_t kMostRows = 65535;
  LaunchShape shape = cover(elements, block);
  shape.grid.y = static_cast<unsigned>(rows < 1 ? 1 : rows < kMostRows ? rows : kMostRows);
  return shape;
}

/// Starts `kernel` on the current stream of `device` and checks the launch. `op` names it in errors.
template <class... Parameters, class... Arguments>
void launch(const char* op, void (*kernel)(Parameters...), const LaunchShape& shape, Device device,
            Arguments... arguments) {
  CINNABAR_CHECK(device.is_cuda(), op, "a CUDA kernel was launched for device ", device);
#ifdef CINNABAR_EMULATED
  emulation::run_grid(op, shape.grid, shape.block, [&] { kernel(static_cast<Parameters>(arguments)...); });
#else
  const DeviceScope scope(device);
  const auto stream = static_cast<cudaStream_t>(current_stream(device));
  // clang-format off
  kernel<<<shape.grid, shape.block, 0, stream>>>(static_cast<Parameters>(arguments)...);
  // clang-format on
  check_cuda(cudaGetLastError(), op);
#endif
}

/// Index of this thread in a 1-D launch made with cover().
__device__ __forceinline__ std::int64_t thread_index() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

}  // namespace cinnabar::cuda
