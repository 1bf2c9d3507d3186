#include "kernels/cpab.hpp"

#include <cmath>
#include <vector>

#include "autograd/cpab.hpp"
#include "bench/bench.hpp"
#include "kernels/cpab_exponential.hpp"
#include "kernels/parallel.hpp"
#include "tests/tensors.hpp"

// Flows of closed domains in float32. The extent is the number of boxes an axis; nodes move by up to a tenth
// of the domain, so a point sees two or three cells. Bytes: points and results, each once.

namespace cinnabar {
namespace {

constexpr CpabOptions kExact{};
constexpr CpabOptions kSteps50{CpabIntegrator::steps, 50};

struct Setup {
  CpabTessellation tessellation;
  Tensor maps;
  Tensor points;  // [P, d]
  Tensor output;  // [N, P, d]
  Tensor grad_maps;
  Tensor grad_points;

  Setup(int dims, std::int64_t boxes, std::int64_t count, std::int64_t batch, Device device)
      : tessellation(
            std::vector<std::int32_t>(static_cast<std::size_t>(dims), static_cast<std::int32_t>(boxes))) {
    const std::int64_t d = dims;
    Tensor nodes = testing::random_tensor({batch, tessellation.vertices(), d}, 1, -0.1, 0.1, DType::f64);
    for (std::int64_t i = 0; i < nodes.numel(); ++i) {
      const std::int64_t vertex = i / d % tessellation.vertices();
      if (tessellation.on_boundary(vertex, static_cast<int>(i % d))) nodes.data<double>()[i] = 0.0;
    }
    maps = tessellation.maps_from_matrices(tessellation.matrices_from_nodes(nodes)).to(DType::f32).to(device);
    // Neighbours in memory are neighbours in space, as the points of an image are.
    const auto side =
        static_cast<std::int64_t>(std::lround(std::pow(static_cast<double>(count), 1.0 / dims)));
    points = cpab_grid_points(std::vector<std::int64_t>(static_cast<std::size_t>(dims), side), false,
                              DType::f32, device);
    output = Tensor::empty({batch, points.shape(0), d}, DType::f32, device);
    grad_maps = Tensor::empty_like(maps);
    grad_points = Tensor::empty_like(output);
  }
  double bytes() const { return static_cast<double>(points.bytes() + output.bytes()); }
};

void forward(benchmark::State& state, Device device, int dims, std::int64_t count, std::int64_t batch,
             const CpabOptions& options) {
  Setup s(dims, state.range(0), count, batch, device);
  bench::measure(state, device, {s.bytes(), 0}, [&] {
    cpab_on(device).forward(s.maps, s.points, s.tessellation.grid(), options, s.output);
  });
}

void backward(benchmark::State& state, Device device, int dims, std::int64_t count, std::int64_t batch,
              const CpabOptions& options) {
  Setup s(dims, state.range(0), count, batch, device);
  s.output.fill(1.0);
  bench::measure(state, device, {3 * s.bytes(), 0}, [&] {
    cpab_on(device).backward(s.output, s.maps, s.points, s.tessellation.grid(), options, s.grad_maps,
                             s.grad_points);
  });
}

// 125,316 points (354^2) and a batch of 16: the sizes for which others state times of their GPU code.
void cpab_forward_1d(benchmark::State& state, Device device) {
  forward(state, device, 1, 125316, 1, kExact);
}
void cpab_forward_2d(benchmark::State& state, Device device) {
  forward(state, device, 2, 125316, 1, kExact);
}
void cpab_forward_2d_batch_16(benchmark::State& state, Device device) {
  forward(state, device, 2, 125316, 16, kExact);
}
void cpab_forward_3d(benchmark::State& state, Device device) {
  forward(state, device, 3, 262144, 1, kExact);
}
CINNABAR_BENCH(cpab_forward_1d, 20);
CINNABAR_BENCH(cpab_forward_2d, 4, 12, 30);
CINNABAR_BENCH(cpab_forward_2d_batch_16, 12);
CINNABAR_BENCH(cpab_forward_3d, 2, 4, 8);

void steps_50_1d(benchmark::State& state, Device device) {
  forward(state, device, 1, 125316, 1, kSteps50);
}
void steps_50_2d(benchmark::State& state, Device device) {
  forward(state, device, 2, 125316, 1, kSteps50);
}
void steps_50_2d_batch_16(benchmark::State& state, Device device) {
  forward(state, device, 2, 125316, 16, kSteps50);
}
void steps_50_3d(benchmark::State& state, Device device) {
  forward(state, device, 3, 262144, 1, kSteps50);
}
CINNABAR_RIVAL(cpab_forward_1d, steps_50_1d, 20);
CINNABAR_RIVAL(cpab_forward_2d, steps_50_2d, 4, 12, 30);
CINNABAR_RIVAL(cpab_forward_2d_batch_16, steps_50_2d_batch_16, 12);
CINNABAR_RIVAL(cpab_forward_3d, steps_50_3d, 2, 4, 8);

void cpab_backward_2d(benchmark::State& state, Device device) {
  backward(state, device, 2, 125316, 1, kExact);
}
void cpab_backward_2d_batch_16(benchmark::State& state, Device device) {
  backward(state, device, 2, 125316, 16, kExact);
}
void cpab_backward_3d(benchmark::State& state, Device device) {
  backward(state, device, 3, 262144, 1, kExact);
}
void cpab_backward_2d_4096_points(benchmark::State& state, Device device) {
  backward(state, device, 2, 4096, 1, kExact);
}
CINNABAR_BENCH(cpab_backward_2d, 4, 12, 30);
CINNABAR_BENCH(cpab_backward_2d_batch_16, 12);
CINNABAR_BENCH(cpab_backward_3d, 2, 4, 8);
CINNABAR_BENCH(cpab_backward_2d_4096_points, 12);

void steps_50_backward_2d(benchmark::State& state, Device device) {
  backward(state, device, 2, 125316, 1, kSteps50);
}
void steps_50_backward_2d_batch_16(benchmark::State& state, Device device) {
  backward(state, device, 2, 125316, 16, kSteps50);
}
void steps_50_backward_3d(benchmark::State& state, Device device) {
  backward(state, device, 3, 262144, 1, kSteps50);
}
CINNABAR_RIVAL(cpab_backward_2d, steps_50_backward_2d, 4, 12, 30);
CINNABAR_RIVAL(cpab_backward_2d_batch_16, steps_50_backward_2d_batch_16, 12);
CINNABAR_RIVAL(cpab_backward_3d, steps_50_backward_3d, 2, 4, 8);

/// The gradient of the papers' code (libcpab): one sensitivity d phi / d theta_k a parameter, carried along
/// the trajectory by 50 steps of the midpoint rule. Kinder than that code: the trajectory is shared by the
/// parameters and the loop over them vectorises.
class Sensitivities {
 public:
  explicit Sensitivities(const CpabSpace& space)
      : grid_(space.grid()), dim_(static_cast<std::size_t>(space.dim())) {
    const std::vector<float> maps = space.basis().maps().to_vector<float>();
    const std::size_t entries = maps.size() / dim_;
    basis_.resize(maps.size());  // [cell, entry, parameter]
    for (std::size_t k = 0; k < dim_; ++k) {
      for (std::size_t i = 0; i < entries; ++i) basis_[i * dim_ + k] = maps[k * entries + i];
    }
  }

  /// Adds to grad [dim] what one point contributes.
  void add(const float* maps, const float* point, const float* grad_output, std::vector<float>& work,
           std::vector<double>& grad) const {
    constexpr int kSteps = 50;
    constexpr float kTime = 1.0f / kSteps;
    work.assign(4 * dim_, 0.0f);
    float* q = work.data();
    float* middle_q = q + 2 * dim_;
    float s[2] = {point[0] * static_cast<float>(grid_.boxes[0]),
                  point[1] * static_cast<float>(grid_.boxes[1])};
    for (int step = 0; step < kSteps; ++step) {
      float middle[2] = {s[0], s[1]};
      half_step(maps, s, 0.5f * kTime, q, q, middle, middle_q);
      float next[2] = {s[0], s[1]};
      half_step(maps, middle, kTime, middle_q, q, next, q);
      s[0] = next[0];
      s[1] = next[1];
    }
    for (std::size_t k = 0; k < dim_; ++k) {
      grad[k] += static_cast<double>(grad_output[0] * q[k] / static_cast<float>(grid_.boxes[0]) +
                                     grad_output[1] * q[dim_ + k] / static_cast<float>(grid_.boxes[1]));
    }
  }

 private:
  /// target += time v(at), target_q = base_q + time (L at_q + B u), all parameters.
  void half_step(const float* maps, const float* at, float time, const float* at_q, const float* base_q,
                 float* target, float* target_q) const {
    float u[2];
    const std::int32_t cell = cpab_locate<float, 2>(grid_, at, u).cell(grid_);
    const float* map = maps + std::int64_t{cell} * 6;
    const float* b = basis_.data() + static_cast<std::size_t>(cell) * 6 * dim_;
    float v[2];
    cpab_apply<float, 2>(map, u, v);
    target[0] += time * v[0];
    target[1] += time * v[1];
    for (std::size_t k = 0; k < dim_; ++k) {
      const float x = at_q[k], y = at_q[dim_ + k];
      const float rate_x = map[0] * x + map[1] * y + b[k] * u[0] + b[dim_ + k] * u[1] + b[2 * dim_ + k];
      const float rate_y =
          map[3] * x + map[4] * y + b[3 * dim_ + k] * u[0] + b[4 * dim_ + k] * u[1] + b[5 * dim_ + k];
      target_q[k] = base_q[k] + time * rate_x;
      target_q[dim_ + k] = base_q[dim_ + k] + time * rate_y;
    }
  }

  CpabGrid grid_;
  std::size_t dim_;
  std::vector<float> basis_;
};

void sensitivities(benchmark::State& state, Device device) {
  if (!device.is_cpu()) return state.SkipWithError("runs on the CPU");
  Setup s(2, state.range(0), 4096, 1, device);
  s.output.fill(1.0);
  const auto boxes = static_cast<std::int32_t>(state.range(0));
  const CpabSpace space({boxes, boxes});
  const Sensitivities rival(space);
  const float* maps = s.maps.data<float>();
  const float* points = s.points.data<float>();
  const float* grad_output = s.output.data<float>();
  bench::measure(state, device, {3 * s.bytes(), 0}, [&] {
    parallel_for(s.points.shape(0), 128, [&](std::int64_t first, std::int64_t last) {
      std::vector<float> work;
      std::vector<double> grad(static_cast<std::size_t>(space.dim()), 0.0);
      for (std::int64_t p = first; p < last; ++p)
        rival.add(maps, points + 2 * p, grad_output + 2 * p, work, grad);
      benchmark::DoNotOptimize(grad.data());
    });
  });
}
CINNABAR_RIVAL(cpab_backward_2d_4096_points, sensitivities, 12);

}  // namespace
}  // namespace cinnabar
