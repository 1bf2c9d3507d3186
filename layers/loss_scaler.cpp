#include "layers/loss_scaler.hpp"

#include <cmath>

#include "autograd/elementwise.hpp"

namespace cinnabar {

namespace {

constexpr const char* kOp = "loss_scaler";
constexpr double kSmallestScale = 0x1p-16;

bool is_positive(double number) {
  return std::isfinite(number) && number > 0.0;
}

}  // namespace

LossScaler::LossScaler(const LossScaleOptions& options) : options_(options), scale_(options.scale) {
  CINNABAR_CHECK(is_positive(options.scale), kOp, "scale ", options.scale, " must be positive");
  CINNABAR_CHECK(options.growth >= 1.0 && is_positive(options.growth), kOp, "growth ", options.growth,
                 " must be at least 1");
  CINNABAR_CHECK(options.backoff > 0.0 && options.backoff < 1.0, kOp, "backoff ", options.backoff,
                 " must be between 0 and 1");
  CINNABAR_CHECK(options.growth_interval >= 1, kOp, "growth interval ", options.growth_interval,
                 " must be at least 1");
}

Variable LossScaler::scaled(const Variable& loss) const {
  return loss * scale_;
}

bool LossScaler::unscale(Optimizer& optimizer) {
  CINNABAR_CHECK(gradients_ == Gradients::scaled, kOp, "the gradients of this step are unscaled already");
  std::vector<Tensor> gradients = gradients_of(optimizer.parameters());
  gradients_ = Gradients::finite;
  if (gradients.empty()) return true;
  Tensor overflow = Tensor::empty({1}, DType::i32, gradients.front().device());
  optimizer_step_on(overflow.device()).unscale(gradients, 1.0 / scale_, overflow);
  if (overflow.item() != 0.0) gradients_ = Gradients::overflown;
  return gradients_ == Gradients::finite;
}

bool LossScaler::step(Optimizer& optimizer) {
  if (gradients_ == Gradients::scaled) unscale(optimizer);
  const bool finite = gradients_ == Gradients::finite;
  gradients_ = Gradients::scaled;
  if (!finite) {
    scale_ *= options_.backoff;
    clean_steps_ = 0;
    CINNABAR_CHECK(scale_ >= kSmallestScale, kOp, "gradients are infinite or NaN even at the scale ",
                   scale_ / options_.backoff);
    return false;
  }
  optimizer.step();
  if (++clean_steps_ == options_.growth_interval) {
    // A scale beyond f32 would only overflow and shrink again.
    if (scale_ * options_.growth < 0x1p127) scale_ *= options_.growth;
    clean_steps_ = 0;
  }
  return true;
}

SafeTensors LossScaler::state() const {
  SafeTensors content;
  content.tensors["scale"] = Tensor::full({}, scale_, DType::f64);
  content.tensors["clean_steps"] = Tensor::from<std::int64_t>({clean_steps_}, {});
  return content;
}

void LossScaler::load_state(const SafeTensors& state) {
  const auto number = [&](const char* name) {
    const auto found = state.tensors.find(name);
    if (found == state.tensors.end() || found->second.numel() != 1) {
      fail_input("the state of a loss scaler lacks ", name);
    }
    return found->second.item();
  };
  const double scale = number("scale");
  const double clean_steps = number("clean_steps");
  if (!is_positive(scale) || !(clean_steps >= 0.0)) {
    fail_input("the state of a loss scaler has the scale ", scale, " after ", clean_steps, " steps");
  }
  scale_ = scale;
  clean_steps_ = static_cast<std::int64_t>(clean_steps);
}

}  // namespace cinnabar
