#pragma once

#include <boost/context/fiber.hpp>
#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

namespace cinnabar::emulation {

/// A host stack on which threads of blocks run, one after another as long as none of them waits.
struct Fiber {
  boost::context::fiber context;  ///< valid while the fiber is not running
  boost::context::fiber host;     ///< what resumed it; valid while it is running
  void* stack_bottom = nullptr;
  std::size_t stack_bytes = 0;
  void* fake_stack = nullptr;  ///< AddressSanitizer's, while the fiber is not running
};

/// The fibers of one host thread. Each calls `work()` again and again: work runs threads of a block as long
/// as there are some to start; then the fiber lies idle until it is resumed.
class FiberPool {
 public:
  explicit FiberPool(std::function<void()> work) : work_(std::move(work)) {}
  ~FiberPool();
  FiberPool(const FiberPool&) = delete;
  FiberPool& operator=(const FiberPool&) = delete;

  /// A fiber that has no work, for the caller to resume.
  Fiber& idle();
  /// Switches from the host thread's own stack to a fiber until it yields.
  void resume(Fiber& fiber);
  /// Switches back to the host thread's stack until the fiber is resumed.
  void yield(Fiber& fiber);

  Fiber& running() { return *running_; }

 private:
  std::unique_ptr<Fiber> make();

  std::function<void()> work_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_;
  Fiber* running_ = nullptr;
  bool closing_ = false;
  const void* host_stack_bottom_ = nullptr;
  std::size_t host_stack_bytes_ = 0;
};

}  // namespace cinnabar::emulation
