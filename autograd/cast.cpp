#include "autograd/cast.hpp"

#include "kernels/cast.hpp"

namespace cinnabar {

namespace {

Tensor converted(const Tensor& from, DType dtype) {
  Tensor to = Tensor::empty(from.shape(), dtype, from.device());
  cast_on(from.device()).convert(from, to);
  return to;
}

}  // namespace

Variable cast(const Variable& x, DType dtype) {
  const DType own = x.value().dtype();
  if (dtype == own) return x;
  return record_one("cast", converted(x.value(), dtype), {x},
                    [own](const Tensor& grad) { return std::vector<Tensor>{converted(grad, own)}; });
}

}  // namespace cinnabar
