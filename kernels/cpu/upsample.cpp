#include "kernels/upsample.hpp"

#include <algorithm>
#include <vector>

#include "kernels/parallel.hpp"

namespace cinnabar::cpu {
namespace {

/// What every output of an axis reads.
template <class T>
struct Sources {
  std::vector<std::int32_t> low;
  std::vector<std::int32_t> high;
  std::vector<T> weight;  // of the higher one
};

template <class T>
Sources<T> sources_of(const ResizeAxis& axis) {
  Sources<T> sources;
  for (std::int32_t i = 0; i < axis.out; ++i) {
    const ResizeSource source = resize_source(axis, i);
    sources.low.push_back(source.low);
    sources.high.push_back(source.high);
    sources.weight.push_back(static_cast<T>(source.weight));
  }
  return sources;
}

/// The transpose: for every voxel of the input the outputs that read it, one contiguous run, with weights.
template <class T>
struct Targets {
  std::vector<std::int32_t> first;
  std::vector<std::size_t> start;  // of the run's weights, and the end
  std::vector<T> weight;
};

template <class T>
Targets<T> targets_of(const ResizeAxis& axis) {
  const Sources<T> sources = sources_of<T>(axis);
  Targets<T> targets;
  targets.start.push_back(0);
  for (std::int32_t voxel = 0; voxel < axis.in; ++voxel) {
    const ResizeTargets range = resize_targets(axis, voxel);
    targets.first.push_back(range.first);
    for (std::int32_t i = range.first; i <= range.last; ++i) {
      const auto at = static_cast<std::size_t>(i);
      targets.weight.push_back(resize_weight(sources.low[at], sources.high[at], sources.weight[at], voxel));
    }
    while (targets.weight.size() > targets.start.back() && targets.weight.back() == T(0)) {
      targets.weight.pop_back();
    }
    targets.start.push_back(targets.weight.size());
  }
  return targets;
}

/// Rows worth handing to a thread: some 10^4 voxels.
std::int64_t rows_of_task(const ResizeAxis& x) {
  return 1 + 8192 / (std::int64_t{x.in} + x.out);
}

/// Blends the four rows above and below in y and z, then the pairs along x.
template <class T>
void run_forward(const Tensor& input, const std::array<ResizeAxis, 3>& axes, bool nearest, Tensor& output) {
  const Sources<T> along_x = sources_of<T>(axes[0]);
  const Sources<T> along_y = sources_of<T>(axes[1]);
  const Sources<T> along_z = sources_of<T>(axes[2]);
  const std::int64_t width = axes[0].in;
  const std::int64_t height = axes[1].in;
  const std::int64_t depth = axes[2].in;
  const std::int64_t rows = std::int64_t{axes[1].out} * axes[2].out;
  const T* source = input.data<T>();
  T* target = output.data<T>();
  parallel_for(input.shape(0) * input.shape(1) * rows, rows_of_task(axes[0]),
               [&](std::int64_t first, std::int64_t last) {
                 std::vector<T> blended(static_cast<std::size_t>(width));
                 for (std::int64_t row = first; row < last; ++row) {
                   const auto y = static_cast<std::size_t>(row % axes[1].out);
                   const auto z = static_cast<std::size_t>(row / axes[1].out % axes[2].out);
                   const T* image = source + row / rows * depth * height * width;
                   const auto row_at = [&](std::int32_t zi, std::int32_t yi) {
                     return image + (zi * height + yi) * width;
                   };
                   const T* r00 = row_at(along_z.low[z], along_y.low[y]);
                   T* out = target + row * axes[0].out;
                   if (nearest) {
                     for (std::size_t x = 0; x < along_x.low.size(); ++x) out[x] = r00[along_x.low[x]];
                     continue;
                   }
                   const T* r01 = row_at(along_z.low[z], along_y.high[y]);
                   const T* r10 = row_at(along_z.high[z], along_y.low[y]);
                   const T* r11 = row_at(along_z.high[z], along_y.high[y]);
                   const T wy = along_y.weight[y];
                   const T wz = along_z.weight[z];
                   for (std::int64_t x = 0; x < width; ++x) {
                     const T below = (T(1) - wy) * r00[x] + wy * r01[x];
                     const T above = (T(1) - wy) * r10[x] + wy * r11[x];
                     blended[static_cast<std::size_t>(x)] = (T(1) - wz) * below + wz * above;
                   }
                   for (std::size_t x = 0; x < along_x.low.size(); ++x) {
                     const T w = along_x.weight[x];
                     out[x] = (T(1) - w) * blended[static_cast<std::size_t>(along_x.low[x])] +
                              w * blended[static_cast<std::size_t>(along_x.high[x])];
                   }
                 }
               });
}

/// Each row of the input adds up the rows of grad_output that read it, then gathers along x.
template <class T>
void run_backward(const Tensor& grad_output, const std::array<ResizeAxis, 3>& axes, Tensor& grad_input) {
  const Targets<T> along_x = targets_of<T>(axes[0]);
  const Targets<T> along_y = targets_of<T>(axes[1]);
  const Targets<T> along_z = targets_of<T>(axes[2]);
  const std::int64_t width = axes[0].out;
  const std::int64_t height = axes[1].out;
  const std::int64_t rows = std::int64_t{axes[1].in} * axes[2].in;
  const T* source = grad_output.data<T>();
  T* target = grad_input.data<T>();
  parallel_for(
      grad_input.shape(0) * grad_input.shape(1) * rows, 16, [&](std::int64_t first, std::int64_t last) {
        std::vector<T> summed(static_cast<std::size_t>(width));
        for (std::int64_t row = first; row < last; ++row) {
          const auto y = static_cast<std::size_t>(row % axes[1].in);
          const auto z = static_cast<std::size_t>(row / axes[1].in % axes[2].in);
          const T* image = source + row / rows * axes[2].out * height * width;
          std::fill(summed.begin(), summed.end(), T(0));
          for (std::size_t kz = along_z.start[z]; kz < along_z.start[z + 1]; ++kz) {
            const std::int64_t oz = along_z.first[z] + static_cast<std::int64_t>(kz - along_z.start[z]);
            for (std::size_t ky = along_y.start[y]; ky < along_y.start[y + 1]; ++ky) {
              const std::int64_t oy = along_y.first[y] + static_cast<std::int64_t>(ky - along_y.start[y]);
              const T weight = along_z.weight[kz] * along_y.weight[ky];
              if (weight == T(0)) continue;
              const T* grad = image + (oz * height + oy) * width;
              for (std::int64_t x = 0; x < width; ++x)
                summed[static_cast<std::size_t>(x)] += weight * grad[x];
            }
          }
          T* out = target + row * axes[0].in;
          for (std::size_t x = 0; x < along_x.first.size(); ++x) {
            const T* run = &summed[static_cast<std::size_t>(along_x.first[x])];
            T sum = T(0);
            for (std::size_t k = along_x.start[x]; k < along_x.start[x + 1]; ++k) {
              sum += along_x.weight[k] * *run++;
            }
            out[x] = sum;
          }
        }
      });
}

void forward(const Tensor& input, const UpsampleOptions& options, Tensor& output) {
  const auto axes = resize_axes(input, output, options);
  dispatch_floating("upsample", input.dtype(), [&](auto type) {
    run_forward<decltype(type)>(input, axes, options.interpolation == Interpolation::nearest, output);
  });
}

void backward(const Tensor& grad_output, const UpsampleOptions& options, Tensor& grad_input) {
  const auto axes = resize_axes(grad_input, grad_output, options);
  dispatch_floating("upsample", grad_input.dtype(),
                    [&](auto type) { run_backward<decltype(type)>(grad_output, axes, grad_input); });
}

}  // namespace

extern const Upsample upsample;
const Upsample upsample{forward, backward};

}  // namespace cinnabar::cpu
