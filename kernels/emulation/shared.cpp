#include "kernels/emulation/shared.hpp"

#include <algorithm>
#include <vector>

#include "engine/error.hpp"

namespace cinnabar::emulation {

namespace {

constexpr std::size_t kStaticLimitBytes = 48 * 1024;  // what every CUDA device grants without opting in

struct BlockArrays {
  std::vector<const SharedArrayBase*> arrays;
  std::uint64_t block_serial = 0;
  std::size_t block_bytes = 0;
};

BlockArrays& of_host_thread() {
  thread_local BlockArrays arrays;
  return arrays;
}

}  // namespace

SharedArrayBase::SharedArrayBase(const char* name, const void* first, std::size_t stride, std::int64_t count)
    : name_(name), first_(static_cast<const char*>(first)), stride_(stride), count_(count) {
  of_host_thread().arrays.push_back(this);
}

SharedArrayBase::~SharedArrayBase() {
  std::erase(of_host_thread().arrays, this);
}

bool SharedArrayBase::begin_block(std::size_t bytes) {
  if (current.op == nullptr) fail("shared memory", detail::concat("'", name_, "' is used outside a kernel"));
  if (block_serial_ == current.block_serial) return false;
  block_serial_ = current.block_serial;
  BlockArrays& block = of_host_thread();
  if (block.block_serial != current.block_serial) {
    block.block_serial = current.block_serial;
    block.block_bytes = 0;
  }
  block.block_bytes += bytes;
  if (block.block_bytes > kStaticLimitBytes) {
    fail_in_kernel(
        detail::concat(block.block_bytes, " bytes of shared memory, above the limit of ", kStaticLimitBytes));
  }
  return true;
}

std::string SharedArrayBase::locate(const void* element) const {
  const auto offset = static_cast<const char*>(element) - first_;
  if (offset < 0 || offset >= count_ * static_cast<std::int64_t>(stride_)) return {};
  return detail::concat("'", name_, "'[", offset / static_cast<std::int64_t>(stride_), "]");
}

void SharedArrayBase::fail_bounds(std::int64_t index) const {
  fail_in_kernel(detail::concat("index ", index, " of shared '", name_, "' is outside 0..", count_ - 1));
}

void fail_race(const void* element, const char* earlier, const AccessLog& log, const char* now) {
  std::string place;
  for (const SharedArrayBase* array : of_host_thread().arrays) {
    if (place.empty()) place = array->locate(element);
  }
  fail_in_kernel(detail::concat("race on shared ", place, ": ", earlier, " by ", log.describe(), " and ", now,
                                " with no barrier between"));
}

}  // namespace cinnabar::emulation
