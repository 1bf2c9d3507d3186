#include "kernels/emulation/block.hpp"

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <numeric>
#include <sstream>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/error.hpp"
#include "kernels/emulation/fibers.hpp"

namespace cinnabar::emulation {

namespace {

/// Thrown into a waiting thread to unwind it after another thread of its block failed.
struct Cancelled {};

/// splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
struct Shuffler {
  std::uint64_t state;

  std::uint64_t next() {
    std::uint64_t z = state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  std::size_t below(std::size_t count) { return static_cast<std::size_t>(next() % count); }
};

std::uint64_t shuffle_seed() {
  static const std::uint64_t seed = [] {
    const char* text = std::getenv("CINNABAR_EMULATION_SEED");
    return text == nullptr ? std::uint64_t{1} : std::strtoull(text, nullptr, 10);
  }();
  return seed;
}

struct Lane {
  WarpOperation operation{};
  std::uint32_t mask = 0;
  std::uint64_t value = 0;
  int source_lane = 0;
  std::uint64_t result = 0;
  std::source_location where;
};

struct Warp {
  std::uint32_t present = 0;  ///< lanes that exist and have not returned
  std::uint32_t arrived = 0;  ///< lanes that wait in a warp operation
  Lane lanes[kWarpSize];
};

std::string describe(const std::source_location& where) {
  const std::string file = where.file_name();
  const std::size_t slash = file.rfind('/');
  return detail::concat(slash == std::string::npos ? file : file.substr(slash + 1), ':', where.line());
}

bool same_place(const std::source_location& a, const std::source_location& b) {
  return a.line() == b.line() && a.column() == b.column() && std::string_view(a.file_name()) == b.file_name();
}

/// Schedules the blocks of this host thread.
class Scheduler {
 public:
  void run(const char* op, dim3 grid, dim3 block, Body body);
  int barrier(const char* kind, bool predicate, const std::source_location& where);
  std::uint64_t exchange(WarpOperation operation, std::uint32_t mask, std::uint64_t value, int source_lane,
                         const std::source_location& where);

 private:
  void run_block();
  void start_threads();
  void run_thread(int thread);
  void enter_thread(int thread);
  void leave_thread(int thread);
  void wait();
  void make_ready(int thread) { ready_.push_back(thread); }
  bool try_complete(Warp& warp, std::uint32_t mask, int arriving_lane);
  std::string describe_deadlock() const;

  FiberPool fibers_{[this] { start_threads(); }};
  Body body_{};
  Shuffler shuffler_{0};
  int thread_count_ = 0;
  int next_ = 0;  ///< position in order_ of the next thread to start
  int returned_ = 0;
  bool cancelling_ = false;
  std::vector<int> order_;
  std::vector<Fiber*> waiting_;  ///< per thread: the fiber it waits on, or null
  std::vector<int> ready_;       ///< threads that may go on
  std::vector<int> at_barrier_;  ///< threads that wait at the block barrier
  int votes_ = 0;
  int vote_result_ = 0;
  const char* barrier_kind_ = nullptr;
  std::source_location barrier_where_;
  std::vector<Warp> warps_;
  std::vector<std::uint32_t> warp_phases_;
  std::exception_ptr error_;
};

Scheduler& scheduler() {
  thread_local Scheduler of_thread;
  return of_thread;
}

// --- Blocks and threads.

void Scheduler::run(const char* op, dim3 grid, dim3 block, Body body) {
  CINNABAR_CHECK(current.op == nullptr, op, "launched from inside kernel ", current.op);
  const auto block_threads = std::uint64_t{block.x} * block.y * block.z;
  CINNABAR_CHECK(block_threads >= 1 && block_threads <= kMaxBlockThreads && block.z <= 64, op,
                 "invalid block (", block.x, ", ", block.y, ", ", block.z, ")");
  CINNABAR_CHECK(grid.x >= 1 && grid.x <= 0x7fffffffu && grid.y >= 1 && grid.y <= 65535 && grid.z >= 1 &&
                     grid.z <= 65535,
                 op, "invalid grid (", grid.x, ", ", grid.y, ", ", grid.z, ")");
  body_ = body;
  thread_count_ = static_cast<int>(block_threads);
  order_.resize(block_threads);
  std::iota(order_.begin(), order_.end(), 0);
  waiting_.assign(block_threads, nullptr);
  const std::size_t warp_count = (block_threads + kWarpSize - 1) / kWarpSize;
  warps_.resize(warp_count);
  gridDim = grid;
  blockDim = block;

  // Blocks in the order first + i * step (mod count): a permutation, since step and count share no factor.
  const std::uint64_t count = std::uint64_t{grid.x} * grid.y * grid.z;
  shuffler_.state = shuffle_seed() ^ (count << 16) ^ block_threads;
  const std::uint64_t first = shuffler_.next() % count;
  std::uint64_t step =
      count < 3 ? 1 : 1 + (shuffler_.next() % (std::min<std::uint64_t>(count, 1u << 31) - 1));
  while (std::gcd(step, count) != 1) --step;
  std::uint64_t linear = first;
  for (std::uint64_t i = 0; i < count && !error_; ++i) {
    blockIdx = {static_cast<unsigned>(linear % grid.x), static_cast<unsigned>(linear / grid.x % grid.y),
                static_cast<unsigned>(linear / grid.x / grid.y)};
    linear = (linear + step) % count;
    current.op = op;
    run_block();
    current.op = nullptr;
  }
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void Scheduler::run_block() {
  ++current.block_serial;
  ++current.phase;
  warp_phases_.assign(warps_.size(), 0);
  current.warp_phases = warp_phases_.data();
  for (std::size_t w = 0; w < warps_.size(); ++w) {
    const int lanes = std::min(kWarpSize, thread_count_ - static_cast<int>(w) * kWarpSize);
    warps_[w].present = lanes == kWarpSize ? ~0u : (1u << lanes) - 1u;
    warps_[w].arrived = 0;
  }
  for (std::size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[shuffler_.below(i)]);
  next_ = 0;
  returned_ = 0;
  votes_ = 0;
  at_barrier_.clear();
  cancelling_ = false;

  while (!error_ && (next_ < thread_count_ || !ready_.empty())) {
    // Starting a thread and resuming one take turns at random.
    if (!ready_.empty() && (next_ == thread_count_ || (shuffler_.next() & 1) != 0)) {
      std::swap(ready_[shuffler_.below(ready_.size())], ready_.back());
      const auto thread = static_cast<std::size_t>(ready_.back());
      ready_.pop_back();
      fibers_.resume(*std::exchange(waiting_[thread], nullptr));
    } else {
      fibers_.resume(fibers_.idle());
    }
  }
  if (!error_ && returned_ < thread_count_) {
    try {
      fail(current.op, describe_deadlock());
    } catch (...) {
      error_ = std::current_exception();
    }
  }
  if (!error_) return;
  cancelling_ = true;
  ready_.clear();
  for (Fiber*& fiber : waiting_) {
    if (fiber != nullptr) fibers_.resume(*std::exchange(fiber, nullptr));
  }
}

/// What a fiber does: start threads until none is left. It comes back here only when a thread has returned.
void Scheduler::start_threads() {
  while (!error_ && next_ < thread_count_) run_thread(order_[static_cast<std::size_t>(next_++)]);
}

void Scheduler::run_thread(int thread) {
  enter_thread(thread);
  try {
    body_.call(body_.object);
    leave_thread(thread);
  } catch (const Cancelled&) {
  } catch (...) {
    if (!error_) error_ = std::current_exception();
  }
}

void Scheduler::enter_thread(int thread) {
  current.thread = static_cast<std::int16_t>(thread);
  current.warp = static_cast<std::int16_t>(thread / kWarpSize);
  current.lane = static_cast<std::int16_t>(thread % kWarpSize);
  const auto linear = static_cast<unsigned>(thread);
  threadIdx = {linear % blockDim.x, linear / blockDim.x % blockDim.y, linear / blockDim.x / blockDim.y};
}

void Scheduler::leave_thread(int thread) {
  ++returned_;
  Warp& warp = warps_[static_cast<std::size_t>(thread / kWarpSize)];
  warp.present &= ~(1u << (thread % kWarpSize));
  // Lanes that waited for this one may now be complete.
  for (std::uint32_t rest = warp.arrived; rest != 0; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    if ((warp.arrived >> lane & 1u) != 0) try_complete(warp, warp.lanes[lane].mask, -1);
  }
}

void Scheduler::wait() {
  const int thread = current.thread;
  Fiber& fiber = fibers_.running();
  waiting_[static_cast<std::size_t>(thread)] = &fiber;
  fibers_.yield(fiber);
  enter_thread(thread);
  if (cancelling_) throw Cancelled{};
}

std::string Scheduler::describe_deadlock() const {
  std::ostringstream text;
  text << describe_block() << " cannot go on: of " << thread_count_ << " threads, " << returned_
       << " have returned";
  if (!at_barrier_.empty()) {
    text << ", " << at_barrier_.size() << " wait at the barrier " << describe(barrier_where_);
  }
  int in_warps = 0;
  std::string places;
  for (const Warp& warp : warps_) {
    in_warps += __builtin_popcount(warp.arrived);
    for (std::uint32_t rest = warp.arrived; rest != 0; rest &= rest - 1) {
      const std::string place = describe(warp.lanes[__builtin_ctz(rest)].where);
      if (places.find(place) == std::string::npos) places += ' ' + place;
    }
  }
  if (in_warps > 0) text << ", " << in_warps << " wait for lanes of their warp at" << places;
  return text.str();
}

// --- Barriers and warp operations.

int Scheduler::barrier(const char* kind, bool predicate, const std::source_location& where) {
  if (at_barrier_.empty()) {
    barrier_kind_ = kind;
    barrier_where_ = where;
  } else if (barrier_kind_ != kind || !same_place(barrier_where_, where)) {
    fail_in_kernel(detail::concat("divergent barriers: others of the block wait at ", barrier_kind_, " (",
                                  describe(barrier_where_), "), this thread at ", kind, " (", describe(where),
                                  ")"));
  }
  votes_ += predicate ? 1 : 0;
  if (static_cast<int>(at_barrier_.size()) + 1 < thread_count_) {
    at_barrier_.push_back(current.thread);
    wait();
    return vote_result_;
  }
  ++current.phase;
  for (const int thread : at_barrier_) make_ready(thread);
  at_barrier_.clear();
  vote_result_ = std::exchange(votes_, 0);
  return vote_result_;
}

std::uint64_t Scheduler::exchange(WarpOperation operation, std::uint32_t mask, std::uint64_t value,
                                  int source_lane, const std::source_location& where) {
  Warp& warp = warps_[static_cast<std::size_t>(current.warp)];
  const int lane = current.lane;
  if ((mask >> lane & 1u) == 0) {
    fail_in_kernel(detail::concat("a warp operation's mask lacks the calling lane (", describe(where), ")"));
  }
  for (std::uint32_t rest = warp.arrived & mask; rest != 0; rest &= rest - 1) {
    const Lane& other = warp.lanes[__builtin_ctz(rest)];
    if (other.mask == mask && (other.operation != operation || !same_place(other.where, where))) {
      fail_in_kernel(detail::concat("divergent warp operations: lanes of one mask wait at ",
                                    describe(other.where), " and at ", describe(where)));
    }
    if (other.mask == mask) break;  // the others of this mask have been compared with it
  }
  warp.lanes[lane] = {operation, mask, value, source_lane, 0, where};
  warp.arrived |= 1u << lane;
  if (!try_complete(warp, mask, lane)) wait();
  return warp.lanes[lane].result;
}

/// Ends the operation of `mask` if every lane of it that has not returned has arrived. All lanes but
/// `arriving_lane` (-1: none) are waiting and become ready.
bool Scheduler::try_complete(Warp& warp, std::uint32_t mask, int arriving_lane) {
  const std::uint32_t expected = mask & warp.present;
  if ((expected & ~warp.arrived) != 0) return false;
  std::uint32_t together = 0;
  std::uint32_t votes = 0;
  for (std::uint32_t rest = warp.arrived & expected; rest != 0; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    if (warp.lanes[lane].mask != mask) continue;
    together |= 1u << lane;
    if (warp.lanes[lane].value != 0) votes |= 1u << lane;
  }
  if (together != expected || expected == 0) return false;
  warp.arrived &= ~expected;
  const auto index = static_cast<std::size_t>(&warp - warps_.data());
  for (std::uint32_t rest = expected; rest != 0; rest &= rest - 1) {
    const int l = __builtin_ctz(rest);
    Lane& lane = warp.lanes[l];
    switch (lane.operation) {
      case WarpOperation::sync:
        break;
      case WarpOperation::shuffle:  // a lane that takes no part has no value to give: all bits set
        lane.result =
            (expected >> lane.source_lane & 1u) != 0 ? warp.lanes[lane.source_lane].value : ~std::uint64_t{0};
        break;
      case WarpOperation::ballot:
        lane.result = votes;
        break;
      case WarpOperation::all:
        lane.result = votes == expected ? 1 : 0;
        break;
      case WarpOperation::match:
        lane.result = 0;
        for (std::uint32_t others = expected; others != 0; others &= others - 1) {
          const int other = __builtin_ctz(others);
          if (warp.lanes[other].value == lane.value) lane.result |= std::uint64_t{1} << other;
        }
        break;
    }
    if (l != arriving_lane) make_ready(static_cast<int>(index) * kWarpSize + l);
  }
  if (warp.lanes[__builtin_ctz(expected)].operation == WarpOperation::sync) ++warp_phases_[index];
  return true;
}

}  // namespace

void run_blocks(const char* op, dim3 grid, dim3 block, Body body) {
  scheduler().run(op, grid, block, body);
}

int block_barrier(const char* kind, bool predicate, const std::source_location& where) {
  CINNABAR_CHECK(current.op != nullptr, kind, "called outside a kernel");
  return scheduler().barrier(kind, predicate, where);
}

std::uint64_t warp_exchange(WarpOperation operation, std::uint32_t mask, std::uint64_t value, int source_lane,
                            const std::source_location& where) {
  CINNABAR_CHECK(current.op != nullptr, "warp operation", "called outside a kernel");
  return scheduler().exchange(operation, mask, value, source_lane, where);
}

std::string describe_thread(int thread) {
  const auto t = static_cast<unsigned>(thread);
  return detail::concat("thread (", t % blockDim.x, ", ", t / blockDim.x % blockDim.y, ", ",
                        t / blockDim.x / blockDim.y, ")");
}

std::string describe_block() {
  return detail::concat("block (", blockIdx.x, ", ", blockIdx.y, ", ", blockIdx.z, ")");
}

void fail_in_kernel(const std::string& message) {
  const char* op = current.op == nullptr ? "emulation" : current.op;
  throw Error(
      detail::concat(op, ": ", message, ", ", describe_thread(current.thread), " of ", describe_block()));
}

}  // namespace cinnabar::emulation
