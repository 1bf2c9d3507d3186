#include "data/data_loader.hpp"

#include <omp.h>

#include <charconv>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "engine/stream.hpp"

namespace cinnabar {

namespace {

constexpr const char* kOp = "data_loader";
constexpr std::uint64_t kAugmentation = std::uint64_t{0x6175676D} << 32;  // streams of the seed, one a batch

BatchSource finished(BatchSource source, const DataLoaderOptions& options) {
  return [source = std::move(source), device = options.device, augment = options.augment,
          seed = options.seed](std::int64_t step) {
    Batch batch = source(step);
    for (auto& [name, tensor] : batch) tensor = tensor.to(device);
    if (!augment) return batch;
    return augment(std::move(batch), {seed, kAugmentation + static_cast<std::uint64_t>(step), 0});
  };
}

/// The integer stored under a key of a state.
template <class Integer>
Integer stored(const SafeTensors& state, const char* key) {
  const auto found = state.metadata.find(key);
  if (found == state.metadata.end()) fail_input("the state of the data loader lacks '", key, "'");
  const std::string& text = found->second;
  Integer value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    fail_input("'", key, "' in the state of the data loader is '", text, "'");
  }
  return value;
}

}  // namespace

/// A thread that makes the batches from `step` on and waits while `capacity` of them lie ready. It ends with
/// the first batch that cannot be made.
class DataLoader::Prefetcher {
 public:
  Prefetcher(BatchSource make, std::int64_t step, std::size_t capacity, Device device)
      : make_(std::move(make)), capacity_(capacity), thread_([this, step, device] { run(step, device); }) {}

  ~Prefetcher() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    taken_.notify_one();
    thread_.join();
  }
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  /// The next batch, or what was thrown instead. After a throw there is none, and the object must go.
  Batch take() {
    std::unique_lock lock(mutex_);
    made_.wait(lock, [this] { return !ready_.empty() || failure_ != nullptr; });
    if (ready_.empty()) std::rethrow_exception(failure_);
    Batch batch = std::move(ready_.front());
    ready_.pop_front();
    taken_.notify_one();
    return batch;
  }

 private:
  void run(std::int64_t step, Device device) {
    try {
      omp_set_num_threads(1);
      const Stream stream(device);
      const StreamScope scope(stream);
      for (; wait_for_room(); ++step) {
        Batch batch = make_(step);
        stream.synchronize();
        hand_over(std::move(batch));
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      failure_ = std::current_exception();
      made_.notify_one();
    }
  }

  /// Waits until a batch is wanted; false when none will be.
  bool wait_for_room() {
    std::unique_lock lock(mutex_);
    taken_.wait(lock, [this] { return stopping_ || ready_.size() < capacity_; });
    return !stopping_;
  }

  void hand_over(Batch batch) {
    const std::lock_guard lock(mutex_);
    ready_.push_back(std::move(batch));
    made_.notify_one();
  }

  BatchSource make_;
  std::size_t capacity_;
  std::mutex mutex_;  ///< of what follows
  std::condition_variable made_, taken_;
  std::deque<Batch> ready_;
  std::exception_ptr failure_;
  bool stopping_ = false;
  std::thread thread_;  ///< last: it uses the others
};

DataLoader::DataLoader(BatchSource source, DataLoaderOptions options) : options_(std::move(options)) {
  CINNABAR_CHECK(source != nullptr, kOp, "no source of batches");
  CINNABAR_CHECK(options_.prefetch >= 0 && options_.prefetch <= 1000, kOp, "prefetch ", options_.prefetch,
                 " is not in 0..1000");
  require_device(options_.device);
  make_ = finished(std::move(source), options_);
  synchronize(options_.device);
}

DataLoader::~DataLoader() = default;

Batch DataLoader::next() {
  Batch batch;
  if (options_.prefetch == 0) {
    batch = make_(step_);
  } else {
    if (prefetcher_ == nullptr) {
      prefetcher_ = std::make_unique<Prefetcher>(make_, step_, static_cast<std::size_t>(options_.prefetch),
                                                 options_.device);
    }
    try {
      batch = prefetcher_->take();
    } catch (...) {
      prefetcher_.reset();
      throw;
    }
  }
  ++step_;
  return batch;
}

void DataLoader::seek(std::int64_t step) {
  CINNABAR_CHECK(step >= 0, kOp, "there is no batch ", step);
  prefetcher_.reset();
  step_ = step;
}

SafeTensors DataLoader::state() const {
  return {{}, {{"step", std::to_string(step_)}, {"seed", std::to_string(options_.seed)}}};
}

void DataLoader::load_state(const SafeTensors& state) {
  const auto step = stored<std::int64_t>(state, "step");
  const auto seed = stored<std::uint64_t>(state, "seed");
  if (seed != options_.seed) {
    fail_input("the data loader has the seed ", options_.seed, ", its state ", seed);
  }
  if (step < 0) fail_input("the state of the data loader has the step ", step);
  seek(step);
}

}  // namespace cinnabar
