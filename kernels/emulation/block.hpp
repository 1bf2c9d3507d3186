#pragma once

// Runs the threads of a block as fibers. A thread that meets a barrier or a warp operation lends the CPU to
// another thread of its block; blocks run one after another.

#include <cstdint>
#include <source_location>
#include <string>

#include "vector_types.h"

namespace cinnabar::emulation {

inline constexpr int kWarpSize = 32;
inline constexpr int kMaxBlockThreads = 1024;

/// The thread of a block that is running on this host thread, for the indices and the shared-memory log.
struct Current {
  const char* op = nullptr;               ///< null outside a launch
  std::uint64_t block_serial = 0;         ///< differs between any two blocks that this host thread ran
  std::uint64_t phase = 0;                ///< differs between any two stretches without a block barrier
  const std::uint32_t* warp_phases = {};  ///< per warp: the number of __syncwarp() since the block began
  std::int16_t thread = 0;
  std::int16_t warp = 0;
  std::int16_t lane = 0;
};
inline thread_local constinit Current current{};

/// The body of a kernel, called once for each thread.
struct Body {
  void (*call)(const void* object);
  const void* object;
};
void run_blocks(const char* op, dim3 grid, dim3 block, Body body);

/// Runs `body` for every thread of every block. Blocks and threads come in an order shuffled from a fixed
/// seed (the environment variable CINNABAR_EMULATION_SEED changes it). The first error of any thread is
/// thrown.
template <class Function>
void run_grid(const char* op, dim3 grid, dim3 block, const Function& body) {
  run_blocks(op, grid, block, {[](const void* object) { (*static_cast<const Function*>(object))(); }, &body});
}

/// A block barrier. Returns the number of threads that came with a true predicate.
int block_barrier(const char* kind, bool predicate, const std::source_location& where);

enum class WarpOperation { sync, shuffle, ballot, all, match };

/// A rendezvous of the lanes in `mask`: waits for all that have not returned and gives this lane's result.
/// `source_lane` is used by a shuffle only.
std::uint64_t warp_exchange(WarpOperation operation, std::uint32_t mask, std::uint64_t value, int source_lane,
                            const std::source_location& where);

/// "thread (x, y, z)" of a linear index in the running block, and "block (x, y, z)".
std::string describe_thread(int thread);
std::string describe_block();

/// Throws Error that begins with the running kernel's op and ends with its thread and block.
[[noreturn]] void fail_in_kernel(const std::string& message);

}  // namespace cinnabar::emulation

inline thread_local constinit uint3 threadIdx{0, 0, 0};
inline thread_local constinit uint3 blockIdx{0, 0, 0};
inline thread_local constinit dim3 blockDim{};
inline thread_local constinit dim3 gridDim{};
inline constexpr int warpSize = cinnabar::emulation::kWarpSize;
