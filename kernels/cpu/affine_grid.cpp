#include "kernels/affine_grid.hpp"

#include <array>
#include <type_traits>
#include <vector>

#include "kernels/parallel.hpp"

namespace cinnabar::cpu {
namespace {

/// Base coordinates of every axis, x first; a 2-D grid has one plane of height z = 0.
template <class T>
std::array<std::vector<T>, 3> base_coordinates(const Tensor& grid, int dims, bool align_corners) {
  std::array<std::vector<T>, 3> base;
  for (int axis = 0; axis < 3; ++axis) {
    const std::int64_t size = axis < dims ? grid.shape(-2 - axis) : 1;
    for (std::int64_t i = 0; i < size; ++i) {
      base[static_cast<std::size_t>(axis)].push_back(base_coordinate<T>(i, size, align_corners));
    }
  }
  return base;
}

template <class T, int Dims>
void run_forward(const Tensor& theta, bool align_corners, Tensor& grid) {
  const auto base = base_coordinates<T>(grid, Dims, align_corners);
  const auto width = static_cast<std::int64_t>(base[0].size());
  const auto height = static_cast<std::int64_t>(base[1].size());
  const auto depth = static_cast<std::int64_t>(base[2].size());
  const T* matrices = theta.data<T>();
  T* points = grid.data<T>();
  parallel_for(grid.shape(0) * depth * height, 1 + 8192 / (width + 1),
               [&](std::int64_t first, std::int64_t last) {
                 for (std::int64_t row = first; row < last; ++row) {
                   const T* m = matrices + row / (depth * height) * Dims * (Dims + 1);
                   const T y = base[1][static_cast<std::size_t>(row % height)];
                   const T z = base[2][static_cast<std::size_t>(row / height % depth)];
                   T* out = points + row * width * Dims;
                   for (int r = 0; r < Dims; ++r) {
                     const T* line = m + r * (Dims + 1);
                     T constant = line[1] * y + line[Dims];
                     if (Dims == 3) constant += line[2] * z;
                     for (std::int64_t w = 0; w < width; ++w) {
                       out[w * Dims + r] = line[0] * base[0][static_cast<std::size_t>(w)] + constant;
                     }
                   }
                 }
               });
}

template <class T, int Dims>
void run_backward(const Tensor& grad_grid, bool align_corners, Tensor& grad_theta) {
  constexpr int kColumns = Dims + 1;
  using Sums = std::array<double, Dims * kColumns>;
  const auto base = base_coordinates<T>(grad_grid, Dims, align_corners);
  const auto width = static_cast<std::int64_t>(base[0].size());
  const auto height = static_cast<std::int64_t>(base[1].size());
  const auto depth = static_cast<std::int64_t>(base[2].size());
  const std::int64_t batch = grad_grid.shape(0);
  std::vector<Sums> planes(static_cast<std::size_t>(batch * depth * height));
  const T* grads = grad_grid.data<T>();
  parallel_for(batch * depth * height, 1 + 8192 / (width + 1), [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row) {
      const double y = base[1][static_cast<std::size_t>(row % height)];
      const double z = base[2][static_cast<std::size_t>(row / height % depth)];
      const T* grad = grads + row * width * Dims;
      Sums& sums = planes[static_cast<std::size_t>(row)];
      for (int r = 0; r < Dims; ++r) {
        double sum = 0.0;
        double sum_x = 0.0;
        for (std::int64_t w = 0; w < width; ++w) {
          const double value = grad[w * Dims + r];
          sum += value;
          sum_x += value * base[0][static_cast<std::size_t>(w)];
        }
        double* line = &sums[static_cast<std::size_t>(r * kColumns)];
        line[0] = sum_x;
        line[1] = sum * y;
        if (Dims == 3) line[2] = sum * z;
        line[Dims] = sum;
      }
    }
  });
  T* target = grad_theta.data<T>();
  for (std::int64_t n = 0; n < batch; ++n) {
    Sums total{};
    for (std::int64_t row = n * depth * height; row < (n + 1) * depth * height; ++row) {
      for (std::size_t k = 0; k < total.size(); ++k) total[k] += planes[static_cast<std::size_t>(row)][k];
    }
    for (const double value : total) *target++ = static_cast<T>(value);
  }
}

template <class Function>
void dispatch(DType dtype, int dims, const Function& fn) {
  dispatch_floating("affine_grid", dtype, [&](auto type) {
    if (dims == 2) return fn(type, std::integral_constant<int, 2>{});
    fn(type, std::integral_constant<int, 3>{});
  });
}

void forward(const Tensor& theta, bool align_corners, Tensor& grid) {
  const int dims = affine_grid_dims(theta, grid);
  dispatch(theta.dtype(), dims,
           [&](auto type, auto axes) { run_forward<decltype(type), axes()>(theta, align_corners, grid); });
}

void backward(const Tensor& grad_grid, bool align_corners, Tensor& grad_theta) {
  const int dims = affine_grid_dims(grad_theta, grad_grid);
  dispatch(grad_grid.dtype(), dims, [&](auto type, auto axes) {
    run_backward<decltype(type), axes()>(grad_grid, align_corners, grad_theta);
  });
}

}  // namespace

extern const AffineGrid affine_grid;
const AffineGrid affine_grid{forward, backward};

}  // namespace cinnabar::cpu
