#include "layers/correlation.hpp"

#include <cmath>

#include "autograd/elementwise.hpp"
#include "autograd/layout.hpp"
#include "autograd/matmul.hpp"
#include "autograd/reduce.hpp"

namespace cinnabar {

namespace {
constexpr const char* kOp = "correlation";
}

Variable all_pairs_correlation(const Variable& a, const Variable& b) {
  const Shape &from = a.shape(), &to = b.shape();
  CINNABAR_CHECK(from.rank() == 5 && to.rank() == 5 && from[0] == to[0] && from[1] == to[1], kOp,
                 "needs features [N, C, D, H, W] of equal batch and channels, got ", from, " and ", to);
  const double scale = 1.0 / std::sqrt(static_cast<double>(from[1]));
  const Variable products = matmul(reshape(b, {to[0], to[1], -1}), reshape(a, {from[0], from[1], -1}), true);
  return scale * reshape(products, {from[0], products.shape()[1], from[2], from[3], from[4]});
}

Variable local_correlation(const Variable& a, const Variable& b, const std::array<std::int64_t, 3>& radius) {
  const Shape& shape = a.shape();
  CINNABAR_CHECK(shape.rank() == 5 && b.shape() == shape, kOp,
                 "needs features [N, C, D, H, W] of equal shape, got ", shape, " and ", b.shape());
  const auto& [depth, height, width] = radius;
  CINNABAR_CHECK(depth >= 0 && height >= 0 && width >= 0, kOp, "needs a radius, got ", depth, ", ", height,
                 ", ", width);
  const Variable padded = pad(b, {{0, 0}, {0, 0}, {depth, depth}, {height, height}, {width, width}});
  std::vector<Variable> products;
  for (std::int64_t z = 0; z <= 2 * depth; ++z) {
    for (std::int64_t y = 0; y <= 2 * height; ++y) {
      for (std::int64_t x = 0; x <= 2 * width; ++x) {
        const Variable moved =
            slice(padded, {{}, {}, {z, z + shape[2]}, {y, y + shape[3]}, {x, x + shape[4]}});
        products.push_back(mean(a * moved, {1}, true));
      }
    }
  }
  return concat(products, 1);
}

}  // namespace cinnabar
