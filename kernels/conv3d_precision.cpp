#include "kernels/conv3d_precision.hpp"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

namespace cinnabar {

namespace {

constexpr std::pair<Conv3dPrecision, std::string_view> kNames[] = {
    {Conv3dPrecision::fp32, "fp32"},
    {Conv3dPrecision::tf32, "tf32"},
    {Conv3dPrecision::fp16, "fp16"},
    {Conv3dPrecision::bf16, "bf16"},
};

}  // namespace

std::string_view name_of(Conv3dPrecision precision) {
  return std::find_if(std::begin(kNames), std::end(kNames),
                      [precision](const auto& entry) { return entry.first == precision; })
      ->second;
}

Conv3dPrecision parse_conv3d_precision(std::string_view name) {
  for (const auto& [precision, text] : kNames) {
    if (text == name) return precision;
  }
  fail_input("precision '", name, "' is not known: use one of fp32, tf32, fp16, bf16");
}

void check_round_operand(const Tensor& from, const Tensor& to) {
  constexpr const char* kOp = "round_operand";
  require_dtype(kOp, from, DType::f32);
  require_dtype(kOp, to, DType::f32);
  require_same_shape(kOp, from, to);
  require_same_device(kOp, from, to);
}

Tensor rounded_operand(const Tensor& operand, Conv3dPrecision precision) {
  if (precision == Conv3dPrecision::fp32) return operand;
  Tensor rounded = Tensor::empty_like(operand);
  round_operand_on(operand.device()).round(operand, precision, rounded);
  return rounded;
}

}  // namespace cinnabar
