// Cross entropy with class labels.
// Work split: one thread per position walks its classes twice (largest logit, then sum of exponentials),
// three times in backward; with space behind the class axis, neighbouring threads read neighbouring logits,
// and what the first walk loads the others find in the caches. Shared memory: none. Launch: 256 threads.
// Limiting resource: memory (4 bytes a logit forward, 8 backward) for tens of classes.
#include "kernels/cross_entropy.hpp"

#include "kernels/cuda/launch.cuh"

namespace cinnabar::cuda {

namespace {

constexpr const char* kOp = "cross_entropy";
constexpr int kBlock = 256;

__device__ __forceinline__ LogSumExp<float> log_sum_exp(const CrossEntropyCall<float>& call, const float* x) {
  float largest = x[0];
  for (std::int64_t c = 1; c < call.classes; ++c) largest = fmaxf(largest, x[c * call.space]);
  float sum = 0.0f;
  for (std::int64_t c = 0; c < call.classes; ++c) sum += expf(x[c * call.space] - largest);
  return {largest, logf(sum)};
}

/// A thread owns one position.
// budget: <=64 registers, 0 B shared, 256 threads, occupancy >= 0.75
__global__ void __launch_bounds__(kBlock)
    cross_entropy_forward_position_kernel(const float* logits, const std::int64_t* labels,
                                          CrossEntropyCall<float> call, float* losses, float* weights) {
  const std::int64_t i = thread_index();
  if (i >= call.positions) return;
  const std::int64_t label = labels[i];
  float loss = 0.0f;
  float weight = 0.0f;
  if (label >= 0 && label < call.classes && label != call.ignored) {
    const float* const x = logits + call.offset(i);
    loss = call.loss(x, label, log_sum_exp(call, x));
    weight = call.weight_of(label);
  } else if (label != call.ignored) {
    loss = weight = std::numeric_limits<float>::quiet_NaN();
  }
  losses[i] = loss;
  weights[i] = weight;
}

/// A thread owns one position.
// budget: <=64 registers, 0 B shared, 256 threads, occupancy >= 0.75
__global__ void __launch_bounds__(kBlock)
    cross_entropy_backward_position_kernel(const float* grad_losses, const float* logits,
                                           const std::int64_t* labels, CrossEntropyCall<float> call,
                                           float* grad_logits) {
  const std::int64_t i = thread_index();
  if (i >= call.positions) return;
  const std::int64_t label = labels[i];
  const float* const x = logits + call.offset(i);
  float* const grad = grad_logits + call.offset(i);
  if (label >= 0 && label < call.classes && label != call.ignored) {
    const LogSumExp<float> total = log_sum_exp(call, x);
    const float share = call.softmax_share(label);
    for (std::int64_t c = 0; c < call.classes; ++c) {
      const float p = expf(-total.surprise(x[c * call.space]));
      grad[c * call.space] = grad_losses[i] * (p * share - call.target_share(c, label));
    }
    return;
  }
  const float value = label == call.ignored ? 0.0f : std::numeric_limits<float>::quiet_NaN();
  for (std::int64_t c = 0; c < call.classes; ++c) grad[c * call.space] = value;
}

void forward(const Tensor& logits, const Tensor& labels, const Tensor& class_weight,
             const CrossEntropyOptions& options, Tensor& losses, Tensor& weights) {
  check_cross_entropy(logits, labels, class_weight, options);
  check_cross_entropy_values(logits, labels, losses);
  check_cross_entropy_values(logits, labels, weights);
  require_dtype(kOp, logits, DType::f32);
  if (labels.numel() == 0) return;
  launch(kOp, cross_entropy_forward_position_kernel, cover(labels.numel(), kBlock), logits.device(),
         logits.data<float>(), labels.data<std::int64_t>(),
         cross_entropy_call<float>(logits, labels, class_weight, options), losses.data<float>(),
         weights.data<float>());
}

void backward(const Tensor& grad_losses, const Tensor& logits, const Tensor& labels,
              const Tensor& class_weight, const CrossEntropyOptions& options, Tensor& grad_logits) {
  check_cross_entropy(logits, labels, class_weight, options);
  check_cross_entropy_values(logits, labels, grad_losses);
  check_cross_entropy_gradient(logits, grad_logits);
  require_dtype(kOp, logits, DType::f32);
  if (labels.numel() == 0) return;
  launch(kOp, cross_entropy_backward_position_kernel, cover(labels.numel(), kBlock), logits.device(),
         grad_losses.data<float>(), logits.data<float>(), labels.data<std::int64_t>(),
         cross_entropy_call<float>(logits, labels, class_weight, options), grad_logits.data<float>());
}

}  // namespace

extern const CrossEntropy cross_entropy;
const CrossEntropy cross_entropy{forward, backward};

}  // namespace cinnabar::cuda
