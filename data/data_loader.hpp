#pragma once

#include <functional>
#include <memory>

#include "data/batch.hpp"
#include "engine/safetensors.hpp"
#include "kernels/random.hpp"

namespace cinnabar {

/// Makes batch k of an endless sequence. A pure function of k, so that training can go on anywhere: a
/// PatchSampler is one. It may run on another thread than the caller's.
using BatchSource = std::function<Batch(std::int64_t step)>;

/// Changes a batch before it is handed out. Its randomness must come from `randomness`, which names a
/// sequence of numbers that belongs to this batch alone (its seed and stream fit autograd/random.hpp).
using Augment = std::function<Batch(Batch batch, const RandomSequence& randomness)>;

struct DataLoaderOptions {
  std::int64_t prefetch = 2;      ///< batches made ahead on a thread of their own; 0: next() makes them
  Device device = Device::cpu();  ///< where batches go, before they are augmented
  Augment augment = {};
  std::uint64_t seed = 0;  ///< of the augmentation
};

/// Hands out the batches of a source one after the other, made ahead while the caller trains. What comes out
/// does not depend on `prefetch`, on threads or on when it is asked for.
///
/// The thread starts with the first next() and holds one OpenMP thread, so that it does not fight the caller
/// for cores. For a CUDA device it works on a stream of its own and finishes each batch there before it hands
/// it out; the constructor waits for what is queued on the device, such as the volumes' way there.
class DataLoader {
 public:
  explicit DataLoader(BatchSource source, DataLoaderOptions options = {});
  /// Ends the thread; waits for the batch it is making, if any.
  ~DataLoader();
  DataLoader(const DataLoader&) = delete;
  DataLoader& operator=(const DataLoader&) = delete;

  /// Batch number `step()`. What the source or the augmentation throws for that batch is thrown here, after
  /// the batches before it; asked again, the batch is tried again.
  Batch next();

  /// Number of the batch that next() hands out: all there is to know to go on.
  std::int64_t step() const { return step_; }
  /// Goes on with any batch; what was made ahead is dropped.
  void seek(std::int64_t step);

  /// Step and seed. Loading a state with another seed throws InputError and changes nothing.
  SafeTensors state() const;
  void load_state(const SafeTensors& state);

 private:
  class Prefetcher;

  BatchSource make_;  ///< source, move and augmentation in one
  DataLoaderOptions options_;
  std::int64_t step_ = 0;
  std::unique_ptr<Prefetcher> prefetcher_;  ///< none before the first next(), and after a failure or seek
};

}  // namespace cinnabar
