#include "kernels/emulation/fibers.hpp"

#include <boost/context/protected_fixedsize_stack.hpp>
#include <utility>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// AddressSanitizer must be told which stack it is on, before and after every switch.

namespace cinnabar::emulation {

namespace {

constexpr std::size_t kStackBytes = 256 * 1024;  // AddressSanitizer's frames are several times larger

void before_switch([[maybe_unused]] void** fake_stack, [[maybe_unused]] const void* bottom,
                   [[maybe_unused]] std::size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(fake_stack, bottom, bytes);
#endif
}

void after_switch([[maybe_unused]] void* fake_stack, [[maybe_unused]] const void** old_bottom,
                  [[maybe_unused]] std::size_t* old_bytes) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake_stack, old_bottom, old_bytes);
#endif
}

void forget_frames([[maybe_unused]] const void* bottom, [[maybe_unused]] std::size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(bottom, bytes);
#endif
}

}  // namespace

FiberPool::~FiberPool() {
  closing_ = true;
  for (const auto& fiber : fibers_) {
    resume(*fiber);
    // The stack is unmapped now, but the marks of its frames would outlast it and meet the next mapping
    // there.
    forget_frames(fiber->stack_bottom, fiber->stack_bytes);
  }
}

std::unique_ptr<Fiber> FiberPool::make() {
  auto fiber = std::make_unique<Fiber>();
  boost::context::protected_fixedsize_stack allocator(kStackBytes);
  const boost::context::stack_context stack = allocator.allocate();
  fiber->stack_bottom = static_cast<char*>(stack.sp) - stack.size;
  fiber->stack_bytes = stack.size;
  fiber->context =
      boost::context::fiber(std::allocator_arg, boost::context::preallocated(stack.sp, stack.size, stack),
                            allocator, [this, self = fiber.get()](boost::context::fiber&& host) {
                              after_switch(nullptr, &host_stack_bottom_, &host_stack_bytes_);
                              self->host = std::move(host);
                              while (!closing_) {
                                work_();
                                idle_.push_back(self);
                                yield(*self);
                              }
                              before_switch(nullptr, host_stack_bottom_, host_stack_bytes_);
                              return std::move(self->host);
                            });
  return fiber;
}

Fiber& FiberPool::idle() {
  if (idle_.empty()) {
    fibers_.push_back(make());
    return *fibers_.back();
  }
  Fiber& fiber = *idle_.back();
  idle_.pop_back();
  return fiber;
}

void FiberPool::resume(Fiber& fiber) {
  running_ = &fiber;
  void* fake_stack = nullptr;
  before_switch(&fake_stack, fiber.stack_bottom, fiber.stack_bytes);
  fiber.context = std::move(fiber.context).resume();
  after_switch(fake_stack, nullptr, nullptr);
  running_ = nullptr;
}

void FiberPool::yield(Fiber& fiber) {
  before_switch(&fiber.fake_stack, host_stack_bottom_, host_stack_bytes_);
  fiber.host = std::move(fiber.host).resume();
  after_switch(fiber.fake_stack, &host_stack_bottom_, &host_stack_bytes_);
}

}  // namespace cinnabar::emulation
