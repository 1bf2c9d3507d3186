#include "kernels/update_inverse.hpp"

namespace cinnabar {

FieldShape update_inverse_shape(const Tensor& psi, const Tensor& increment, int iterations,
                                const Tensor& updated) {
  constexpr const char* kOp = "update_inverse";
  constexpr int kMostIterations = 64;
  const FieldShape shape = field_shape(kOp, "psi", psi, 3);
  require_field_like(kOp, "increment", increment, psi, 3);
  require_field_like(kOp, "updated", updated, psi, 3);
  CINNABAR_CHECK(iterations >= 0 && iterations <= kMostIterations, kOp, "iterations must be in 0..",
                 kMostIterations, ", got ", iterations);
  return shape;
}

FieldShape update_inverse_backward_shape(const Tensor& grad_updated, const Tensor& psi,
                                         const Tensor& increment, const Tensor& updated,
                                         const Tensor& grad_psi, const Tensor& grad_increment) {
  constexpr const char* kOp = "update_inverse_backward";
  const FieldShape shape = field_shape(kOp, "psi", psi, 3);
  require_field_like(kOp, "increment", increment, psi, 3);
  require_field_like(kOp, "grad_updated", grad_updated, psi, 3);
  require_field_like(kOp, "updated", updated, psi, 3);
  require_field_like(kOp, "grad_psi", grad_psi, psi, 3);
  require_field_like(kOp, "grad_increment", grad_increment, psi, 3);
  return shape;
}

}  // namespace cinnabar
