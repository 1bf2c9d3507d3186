#include "models/quicksilver_correction.hpp"

#include "autograd/elementwise.hpp"
#include "autograd/warp.hpp"
#include "models/quicksilver_prediction.hpp"

namespace cinnabar {

Batch correction_lesson(Quicksilver& prediction, const Batch& pair, const ShootingOptions& shooting) {
  const NoGrad quiet;
  const Tensor &moving = pair.at("moving"), &target = pair.at("target");
  const Variable predicted(predict_momentum(prediction, moving, target));
  const Variable phi = shoot(predicted, shooting).phi;
  return {{"moving", moving},
          {"target", warp(Variable(target), phi, Boundary::border).value()},
          {"momentum", (Variable(pair.at("momentum")) - predicted).value()}};
}

}  // namespace cinnabar
