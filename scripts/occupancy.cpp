// Reads lines "TARGET REGISTERS SHARED_BYTES THREADS" and prints, for each, the share of a multiprocessor's
// threads that can be resident, by NVIDIA's calculator in the toolkit's cuda_occupancy.h. Needs no GPU: the
// limits of each target are those of the CUDA C++ Programming Guide, table "Technical Specifications per
// Compute Capability".
#include <cuda_occupancy.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <iterator>

namespace {

struct Target {
  int compute_capability;
  int threads;             // per multiprocessor
  std::size_t shared_kib;  // per multiprocessor
  std::size_t block_kib;   // most shared memory a block can opt into
  std::size_t reserved;    // bytes of shared memory a block loses to the system
};

constexpr Target kTargets[] = {
    {61, 2048, 96, 48, 0},      {70, 2048, 96, 96, 0},     {75, 1024, 64, 64, 0},
    {80, 2048, 164, 163, 1024}, {86, 1536, 100, 99, 1024}, {89, 1536, 100, 99, 1024},
    {90, 2048, 228, 227, 1024},
};

double occupancy(const Target& target, int registers, std::size_t shared_bytes, int threads) {
  cudaOccDeviceProp device{};
  device.computeMajor = target.compute_capability / 10;
  device.computeMinor = target.compute_capability % 10;
  device.maxThreadsPerBlock = 1024;
  device.maxThreadsPerMultiprocessor = target.threads;
  device.regsPerBlock = 65536;
  device.regsPerMultiprocessor = 65536;
  device.warpSize = 32;
  device.sharedMemPerBlock = 48 * 1024;
  device.sharedMemPerMultiprocessor = target.shared_kib * 1024;
  device.numSms = 1;
  device.sharedMemPerBlockOptin = target.block_kib * 1024;
  device.reservedSharedMemPerBlock = target.reserved;
  cudaOccFuncAttributes kernel{};
  kernel.maxThreadsPerBlock = 1024;
  kernel.numRegs = registers;
  kernel.sharedSizeBytes = shared_bytes;
  kernel.partitionedGCConfig = PARTITIONED_GC_OFF;
  kernel.maxDynamicSharedSizeBytes = 48 * 1024;
  const cudaOccDeviceState state{};
  cudaOccResult result{};
  if (cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads, 0) !=
      CUDA_OCC_SUCCESS) {
    return -1.0;
  }
  return static_cast<double>(result.activeBlocksPerMultiprocessor) * threads / target.threads;
}

}  // namespace

int main() {
  int capability = 0, registers = 0, threads = 0;
  std::size_t shared_bytes = 0;
  while (std::scanf("%d %d %zu %d", &capability, &registers, &shared_bytes, &threads) == 4) {
    const auto* target = std::find_if(std::begin(kTargets), std::end(kTargets), [&](const Target& known) {
      return known.compute_capability == capability;
    });
    if (target == std::end(kTargets)) return 1;
    std::printf("%.4f\n", occupancy(*target, registers, shared_bytes, threads));
  }
  return 0;
}
