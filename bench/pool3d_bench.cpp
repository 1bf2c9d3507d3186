#include "kernels/pool3d.hpp"

#include "bench/bench.hpp"
#include "tests/tensors.hpp"

// Pooling 8 channels of extent^3 voxels by windows of 2 voxels. Bytes: image and results once each.

namespace cinnabar {
namespace {

struct Setup {
  Tensor image;
  Tensor pooled;
  Tensor indices;
  bench::Work work(bool with_indices) const {
    return {static_cast<double>(image.bytes() + pooled.bytes() + (with_indices ? indices.bytes() : 0)), 0};
  }
};

Setup set_up(std::int64_t extent, Device device) {
  const std::int64_t half = extent / 2;
  Setup s{testing::random_tensor({1, 8, extent, extent, extent}, 1).to(device),
          testing::random_tensor({1, 8, half, half, half}, 2).to(device),
          Tensor::zeros({1, 8, half, half, half}, DType::i32, device)};
  pool3d_on(device).max_forward(s.image, {}, s.pooled, s.indices);
  return s;
}

void pool3d_max_forward(benchmark::State& state, Device device) {
  Setup s = set_up(state.range(0), device);
  bench::measure(state, device, s.work(true),
                 [&] { pool3d_on(device).max_forward(s.image, {}, s.pooled, s.indices); });
}
CINNABAR_BENCH(pool3d_max_forward, 32, 64, 128);

void pool3d_max_backward(benchmark::State& state, Device device) {
  Setup s = set_up(state.range(0), device);
  bench::measure(state, device, s.work(true),
                 [&] { pool3d_on(device).max_backward(s.pooled, s.indices, {}, s.image); });
}
CINNABAR_BENCH(pool3d_max_backward, 32, 64, 128);

void pool3d_average_forward(benchmark::State& state, Device device) {
  Setup s = set_up(state.range(0), device);
  bench::measure(state, device, s.work(false),
                 [&] { pool3d_on(device).average_forward(s.image, {}, s.pooled); });
}
CINNABAR_BENCH(pool3d_average_forward, 32, 64, 128);

void pool3d_average_backward(benchmark::State& state, Device device) {
  Setup s = set_up(state.range(0), device);
  bench::measure(state, device, s.work(false),
                 [&] { pool3d_on(device).average_backward(s.pooled, {}, s.image); });
}
CINNABAR_BENCH(pool3d_average_backward, 32, 64, 128);

}  // namespace
}  // namespace cinnabar
