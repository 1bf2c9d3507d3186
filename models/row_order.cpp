#include "models/row_order.hpp"

#include <algorithm>
#include <numeric>

#include "autograd/random.hpp"

namespace cinnabar {

std::vector<std::int64_t> shuffled_rows(std::int64_t count, std::uint64_t seed, std::uint64_t stream) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  const std::vector<double> u =
      random_uniform({count}, 0.0, 1.0, seed, stream, Device::cpu(), DType::f64).to_vector<double>();
  for (std::size_t i = order.size(); i > 1; --i) {
    const auto k = static_cast<std::size_t>(u[i - 1] * static_cast<double>(i));
    std::swap(order[i - 1], order[std::min(k, i - 1)]);
  }
  return order;
}

Tensor gather_rows(const Tensor& from, const std::int64_t* rows, std::int64_t count) {
  Tensor result = Tensor::empty(from.shape().with(0, count), from.dtype());
  for (std::int64_t i = 0; i < count; ++i) result.rows(i, 1).copy_from(from.rows(rows[i], 1));
  return result;
}

}  // namespace cinnabar
