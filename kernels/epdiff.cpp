#include "kernels/epdiff.hpp"

namespace cinnabar {

FieldShape epdiff_shape(const char* op, const Tensor& input, std::int64_t channels, const Tensor& output,
                        std::int64_t output_channels) {
  const FieldShape shape = field_shape(op, "input", input, channels);
  require_field_like(op, "output", output, input, output_channels);
  return shape;
}

FieldShape epdiff_shape(const char* op, const Tensor& first, const Tensor& second, const Tensor& result) {
  const FieldShape shape = field_shape(op, "first field", first, 3);
  require_field_like(op, "second field", second, first, 3);
  require_field_like(op, "result", result, first, 3);
  return shape;
}

FieldShape epdiff_shape(const char* op, const Tensor& grad_result, const Tensor& first, const Tensor& second,
                        const Tensor& grad_first, const Tensor& grad_second) {
  const FieldShape shape = field_shape(op, "first field", first, 3);
  require_field_like(op, "second field", second, first, 3);
  require_field_like(op, "gradient of the result", grad_result, first, 3);
  require_field_like(op, "gradient of the first field", grad_first, first, 3);
  require_field_like(op, "gradient of the second field", grad_second, first, 3);
  return shape;
}

}  // namespace cinnabar
