#include "kernels/cross_entropy.hpp"

#include "autograd/reduce.hpp"
#include "bench/bench.hpp"
#include "tests/tensors.hpp"

// Segmentation of extent^3 voxels into 8 classes. Bytes: logits, labels and losses once each.

namespace cinnabar {
namespace {

constexpr std::int64_t kClasses = 8;

struct Setup {
  Tensor logits, labels, losses, weights, grad_logits;
};

Setup set_up(std::int64_t extent, Device device) {
  const Shape space{1, extent, extent, extent};
  const Shape full{1, kClasses, extent, extent, extent};
  return {testing::random_tensor(full, 1).to(device), Tensor::full(space, 3, DType::i64).to(device),
          testing::random_tensor(space, 2).to(device), testing::random_tensor(space, 3).to(device),
          testing::random_tensor(full, 4).to(device)};
}

void cross_entropy_forward(benchmark::State& state, Device device) {
  Setup s = set_up(state.range(0), device);
  const bench::Work work{
      static_cast<double>(s.logits.bytes() + s.labels.bytes() + s.losses.bytes() + s.weights.bytes()), 0};
  bench::measure(state, device, work,
                 [&] { cross_entropy_on(device).forward(s.logits, s.labels, {}, {}, s.losses, s.weights); });
}
CINNABAR_BENCH(cross_entropy_forward, 32, 64, 128);

void cross_entropy_backward(benchmark::State& state, Device device) {
  Setup s = set_up(state.range(0), device);
  const bench::Work work{static_cast<double>(2 * s.logits.bytes() + s.labels.bytes() + s.losses.bytes()), 0};
  bench::measure(state, device, work, [&] {
    cross_entropy_on(device).backward(s.losses, s.logits, s.labels, {}, {}, s.grad_logits);
  });
}
CINNABAR_BENCH(cross_entropy_backward, 32, 64, 128);

/// log_softmax alone, from reductions and pointwise ops.
void log_softmax(benchmark::State& state, Device device) {
  Setup s = set_up(state.range(0), device);
  const bench::Work work{
      static_cast<double>(s.logits.bytes() + s.labels.bytes() + s.losses.bytes() + s.weights.bytes()), 0};
  bench::measure(state, device, work, [&] { cinnabar::log_softmax(Variable(s.logits), {1}); });
}
CINNABAR_RIVAL(cross_entropy_forward, log_softmax, 32, 64, 128);

}  // namespace
}  // namespace cinnabar
