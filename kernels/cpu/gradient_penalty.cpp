#include "kernels/gradient_penalty.hpp"

#include "kernels/cpu/stencil_runs.hpp"

namespace cinnabar::cpu {

namespace {

void forward(const Tensor& field, const VoxelSpacing& spacing, Tensor& loss) {
  const PenaltyCall call = penalty_call(field, spacing, loss);
  const FieldShape& shape = call.shape;
  dispatch_floating("gradient_penalty", field.dtype(), [&]<class T>(T) {
    const PenaltyWeights<T> weights(call);
    const T* const values = field.data<T>();
    const auto part = [&](std::int64_t first, std::int64_t last) {
      double sum = 0.0;
      for (std::int64_t row = first; row < last; ++row) {
        const T* const channel = values + row / (shape.d * shape.h) * shape.voxels();
        for_each_stencil_run<T>(shape, row % (shape.d * shape.h),
                                [&](const Stencil<T>& near, std::int64_t begin, std::int64_t end) {
                                  double squares = 0.0;
#pragma omp simd reduction(+ : squares)
                                  for (std::int64_t at = begin; at < end; ++at) {
                                    squares += static_cast<double>(weights.squares(near, channel + at));
                                  }
                                  sum += squares;
                                });
      }
      return sum;
    };
    *loss.data<T>() = static_cast<T>(call.scale * parallel_sum(shape.rows(), kStencilGrain, part));
  });
}

void backward(const Tensor& grad_loss, const Tensor& field, const VoxelSpacing& spacing, Tensor& grad_field) {
  const PenaltyCall call = penalty_call(field, spacing, grad_loss);
  require_field_like("gradient_penalty", "gradient", grad_field, field, field.shape(1));
  dispatch_floating("gradient_penalty", field.dtype(), [&]<class T>(T) {
    const PenaltyWeights<T> weights(call);
    const T factor = static_cast<T>(2.0 * call.scale * static_cast<double>(*grad_loss.data<T>()));
    const T* const values = field.data<T>();
    T* const out = grad_field.data<T>();
    const std::int64_t channel = call.shape.voxels();
    for_each_stencil<T>(call.shape, [=](const Stencil<T>& near, std::int64_t n, std::int64_t at) {
      out[n * channel + at] = factor * weights.slope(near, values + n * channel + at);
    });
  });
}

}  // namespace

extern const GradientPenalty gradient_penalty;
const GradientPenalty gradient_penalty{forward, backward};

}  // namespace cinnabar::cpu
