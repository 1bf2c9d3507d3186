// Random fills. The rival is the C++ library's generator on the CPU, one number after another.
#include <random>

#include "autograd/random.hpp"
#include "bench/bench.hpp"

namespace cinnabar::bench {
namespace {

void uniform(benchmark::State& state, Device device) {
  const std::int64_t n = state.range(0);
  Tensor output = Tensor::empty({n, n, n}, DType::f32, device);
  measure(state, device, {.bytes = static_cast<double>(output.bytes())}, [&] {
    random_on(device).uniform({1, 2}, -1.0, 1.0, output);
  });
}

void normal(benchmark::State& state, Device device) {
  const std::int64_t n = state.range(0);
  Tensor output = Tensor::empty({n, n, n}, DType::f32, device);
  measure(state, device, {.bytes = static_cast<double>(output.bytes())}, [&] {
    random_on(device).normal({1, 2}, 0.0, 1.0, output);
  });
}

template <class Distribution>
void fill_with_library(benchmark::State& state, Device device, Distribution distribution) {
  const std::int64_t n = state.range(0);
  Tensor output = Tensor::empty({n, n, n});
  std::mt19937_64 generator(1);
  measure(state, device, {.bytes = static_cast<double>(output.bytes())}, [&] {
    float* data = output.data<float>();
    for (std::int64_t i = 0; i < output.numel(); ++i) data[i] = distribution(generator);
    if (device.is_cuda()) benchmark::DoNotOptimize(output.to(device));
  });
}

void std_uniform(benchmark::State& state, Device device) {
  fill_with_library(state, device, std::uniform_real_distribution<float>(-1.0f, 1.0f));
}

void std_normal(benchmark::State& state, Device device) {
  fill_with_library(state, device, std::normal_distribution<float>(0.0f, 1.0f));
}

CINNABAR_BENCH(uniform, 64, 128, 256);
CINNABAR_RIVAL(uniform, std_uniform, 64, 128);
CINNABAR_BENCH(normal, 64, 128, 256);
CINNABAR_RIVAL(normal, std_normal, 64, 128);

}  // namespace
}  // namespace cinnabar::bench
