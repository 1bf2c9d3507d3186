#pragma once

// Shared memory of a block, as CINNABAR_SHARED declares it: poisoned when the block begins, checked for
// bounds, and logged so that two threads which touch one word with no barrier between are reported.

#include <concepts>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#include <utility>

#include "kernels/emulation/block.hpp"

namespace cinnabar::emulation {

/// Who accessed a word in one way since the last block barrier. Only __syncwarp() orders threads of a warp,
/// as in CUDA's memory model; a shuffle does not.
class AccessLog {
 public:
  /// True if a thread other than the running one is logged and nothing orders it before the running one.
  bool conflicts() const {
    return phase_ == current.phase &&
           (warp_ != current.warp ||
            (warp_phase_ == current.warp_phases[current.warp] && thread_ != current.thread));
  }
  void note() {
    const std::uint32_t warp_phase = current.warp_phases[current.warp];
    if (phase_ != current.phase) {
      *this = AccessLog(current.phase, warp_phase, current.warp, current.thread);
    } else if (warp_ != current.warp) {
      warp_ = kSeveral;
    } else if (warp_phase_ != warp_phase) {
      warp_phase_ = warp_phase;
      thread_ = current.thread;
    } else if (thread_ != current.thread) {
      thread_ = kSeveral;
    }
  }
  std::string describe() const {
    return warp_ == kSeveral || thread_ == kSeveral ? "several threads" : describe_thread(thread_);
  }

  AccessLog() = default;

 private:
  static constexpr std::int16_t kSeveral = -1;

  AccessLog(std::uint64_t phase, std::uint32_t warp_phase, std::int16_t warp, std::int16_t thread)
      : phase_(phase), warp_phase_(warp_phase), warp_(warp), thread_(thread) {}

  std::uint64_t phase_ = 0;
  std::uint32_t warp_phase_ = 0;
  std::int16_t warp_ = 0;
  std::int16_t thread_ = 0;
};

/// Throws the report of a race on the word at `element`.
[[noreturn]] void fail_race(const void* element, const char* earlier, const AccessLog& log, const char* now);

/// One word of shared memory. It reads as a T and is assigned like one; it cannot be copied, so that
/// `auto x = tile[i]` (which would read later than it seems) does not compile: name the type.
template <class T>
class SharedElement {
 public:
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

  SharedElement() = default;
  SharedElement(const SharedElement&) = delete;

  // NOLINTNEXTLINE: implicit like the word it stands for
  operator T() const { return read(); }
  SharedElement& operator=(const T& value) {
    write(value);
    return *this;
  }
  SharedElement& operator=(const SharedElement& other) { return *this = other.read(); }
  template <class U>
  SharedElement& operator+=(const U& value) {
    return *this = static_cast<T>(read() + value);
  }
  template <class U>
  SharedElement& operator-=(const U& value) {
    return *this = static_cast<T>(read() - value);
  }
  template <class U>
  SharedElement& operator*=(const U& value) {
    return *this = static_cast<T>(read() * value);
  }
  template <class U>
  SharedElement& operator/=(const U& value) {
    return *this = static_cast<T>(read() / value);
  }
  template <class U>
  SharedElement& operator|=(const U& value) {
    return *this = static_cast<T>(read() | value);
  }
  template <class U>
  SharedElement& operator&=(const U& value) {
    return *this = static_cast<T>(read() & value);
  }
  template <class U>
  SharedElement& operator^=(const U& value) {
    return *this = static_cast<T>(read() ^ value);
  }
  SharedElement& operator++() { return *this += T(1); }
  SharedElement& operator--() { return *this -= T(1); }
  T operator++(int) {
    const T before = read();
    write(static_cast<T>(before + T(1)));
    return before;
  }

  /// An atomic read-modify-write: change(T&) updates the value. Atomics do not race with each other, only
  /// with plain reads and writes. Returns the value before.
  template <class Change>
  T atomic(const Change& change) {
    if (writes_.conflicts()) fail_race(this, "written", writes_, "updated by an atomic");
    if (reads_.conflicts()) fail_race(this, "read", reads_, "updated by an atomic");
    atomics_.note();
    const T before = value_;
    change(value_);
    return before;
  }

  void poison() { std::memset(static_cast<void*>(&value_), 0xFF, sizeof(T)); }

 private:
  T read() const {
    if (writes_.conflicts()) fail_race(this, "written", writes_, "read");
    if (atomics_.conflicts()) fail_race(this, "updated by an atomic", atomics_, "read");
    reads_.note();
    return value_;
  }
  void write(const T& value) {
    if (reads_.conflicts()) fail_race(this, "read", reads_, "written");
    if (atomics_.conflicts()) fail_race(this, "updated by an atomic", atomics_, "written");
    // Threads may agree on a value: `if (any) flag[0] = 1;`.
    if (writes_.conflicts() && std::memcmp(&value, &value_, sizeof(T)) != 0) {
      fail_race(this, "written", writes_, "written with another value");
    }
    writes_.note();
    value_ = value;
  }

  T value_;
  mutable AccessLog reads_;
  AccessLog writes_;
  AccessLog atomics_;
};

/// What reports need to know of an array; listed per host thread while the array lives.
class SharedArrayBase {
 public:
  SharedArrayBase(const SharedArrayBase&) = delete;
  SharedArrayBase& operator=(const SharedArrayBase&) = delete;

  /// The array's name and index, as "'tile'[3]", if the word lies in it; else empty.
  std::string locate(const void* element) const;

 protected:
  SharedArrayBase(const char* name, const void* first, std::size_t stride, std::int64_t count);
  ~SharedArrayBase();

  /// True for the first thread of a block that gets here; adds the array to the block's 48 KiB.
  bool begin_block(std::size_t bytes);
  [[noreturn]] void fail_bounds(std::int64_t index) const;

 private:
  const char* name_;
  const char* first_;
  std::size_t stride_;
  std::int64_t count_;
  std::uint64_t block_serial_ = 0;
};

/// The block's array `name` of `kCount` words. It decays to a pointer to its first word like an array.
template <class T, std::int64_t kCount>
class SharedArray : public SharedArrayBase {
 public:
  static_assert(kCount > 0);

  explicit SharedArray(const char* name) : SharedArray(name, std::make_unique<SharedElement<T>[]>(kCount)) {}

  /// To be called by every thread where the array is declared.
  void enter() {
    if (!begin_block(sizeof(T) * kCount)) return;
    for (std::int64_t i = 0; i < kCount; ++i) elements_[i].poison();
  }

  template <std::integral Index>
  SharedElement<T>& operator[](Index index) {
    if (!std::in_range<std::int64_t>(index) || index < 0 || static_cast<std::int64_t>(index) >= kCount) {
      fail_bounds(static_cast<std::int64_t>(index));
    }
    return elements_[static_cast<std::size_t>(index)];
  }
  // NOLINTNEXTLINE: arrays decay implicitly
  operator SharedElement<T>*() { return elements_.get(); }

 private:
  SharedArray(const char* name, std::unique_ptr<SharedElement<T>[]> elements)
      : SharedArrayBase(name, elements.get(), sizeof(SharedElement<T>), kCount),
        elements_(std::move(elements)) {}

  std::unique_ptr<SharedElement<T>[]> elements_;
};

}  // namespace cinnabar::emulation

/// `__shared__ type name[count]`. The storage is static: each declaration is one array, and a block's threads
/// run on one host thread.
#define CINNABAR_SHARED(type, name, count)                                           \
  static thread_local ::cinnabar::emulation::SharedArray<type, (count)> name(#name); \
  name.enter()
