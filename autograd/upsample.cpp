#include "autograd/upsample.hpp"

#include <cmath>

namespace cinnabar {

namespace {

Variable resize(const Variable& input, const Shape& spatial, const UpsampleOptions& options) {
  const Tensor image = input.value();
  CINNABAR_CHECK((image.rank() == 4 || image.rank() == 5) && spatial.rank() == image.rank() - 2, "upsample",
                 "needs [N, C, (D,) H, W] and as many extents, got ", image, " and ", spatial);
  std::vector<std::int64_t> extents{image.shape(0), image.shape(1)};
  extents.insert(extents.end(), spatial.begin(), spatial.end());
  Tensor output = Tensor::empty(Shape(extents), image.dtype(), image.device());
  upsample_on(image.device()).forward(image, options, output);
  const Shape shape = image.shape();
  return record_one("upsample", output, {input}, [=](const Tensor& grad_output) {
    Tensor grad_input = Tensor::empty(shape, grad_output.dtype(), grad_output.device());
    upsample_on(grad_output.device()).backward(grad_output, options, grad_input);
    return std::vector<Tensor>{grad_input};
  });
}

}  // namespace

Variable upsample_to(const Variable& input, const Shape& spatial, Interpolation interpolation,
                     bool align_corners) {
  return resize(input, spatial, {interpolation, align_corners, {}});
}

Variable upsample_by(const Variable& input, const std::vector<double>& factors, Interpolation interpolation,
                     bool align_corners) {
  const int rank = input.value().rank();
  CINNABAR_CHECK((rank == 4 || rank == 5) && static_cast<int>(factors.size()) == rank - 2, "upsample",
                 "needs one factor per spatial axis, got ", factors.size(), " for ", input.value());
  UpsampleOptions options{interpolation, align_corners, {}};
  std::vector<std::int64_t> spatial;
  for (std::size_t k = 0; k < factors.size(); ++k) {
    CINNABAR_CHECK(factors[k] > 0.0 && factors[k] < 1e9, "upsample", "factor ", factors[k],
                   " must be positive");
    const auto extent = static_cast<double>(input.shape()[static_cast<int>(k) + 2]);
    spatial.push_back(static_cast<std::int64_t>(std::floor(extent * factors[k])));
    options.factor[factors.size() - 1 - k] = factors[k];
  }
  return resize(input, Shape(spatial), options);
}

}  // namespace cinnabar
