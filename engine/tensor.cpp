#include "engine/tensor.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <ostream>
#include <type_traits>
#include <utility>

namespace cinnabar {

namespace {

template <class Function>
decltype(auto) dispatch_any(DType dtype, Function&& fn) {
  switch (dtype) {
    case DType::f32:
      return fn(float{});
    case DType::f64:
      return fn(double{});
    case DType::f16:
      return fn(Half{});
    case DType::bf16:
      return fn(BFloat16{});
    case DType::i32:
      return fn(std::int32_t{});
    case DType::i64:
      return fn(std::int64_t{});
    case DType::u8:
      return fn(std::uint8_t{});
  }
  fail("tensor", "unknown dtype");
}

template <class T>
constexpr bool is_small_float = std::is_same_v<T, Half> || std::is_same_v<T, BFloat16>;

template <class To, class From>
To convert(From value) {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else if constexpr (is_small_float<From>) {
    return convert<To>(static_cast<float>(value));
  } else if constexpr (is_small_float<To>) {
    return To(static_cast<float>(value));
  } else if constexpr (std::is_integral_v<To> && std::is_floating_point_v<From>) {
    if (std::isnan(value)) return 0;
    const From rounded = std::nearbyint(value);
    if (rounded <= static_cast<From>(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
    if (rounded >= static_cast<From>(std::numeric_limits<To>::max())) return std::numeric_limits<To>::max();
    return static_cast<To>(rounded);
  } else if constexpr (std::is_integral_v<To> && std::is_integral_v<From>) {
    if (std::cmp_less(value, std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
    if (std::cmp_greater(value, std::numeric_limits<To>::max())) return std::numeric_limits<To>::max();
    return static_cast<To>(value);
  } else {
    return static_cast<To>(value);
  }
}

/// Sends a short run of the value to the device and copies what is filled behind itself until all is: the
/// engine launches no kernels, and the rest never crosses the bus.
void fill_by_doubling(Tensor& tensor, double value) {
  constexpr std::int64_t kRun = 4096;
  const Device device = tensor.device();
  const Tensor run = Tensor::full({std::min(kRun, tensor.numel())}, value, tensor.dtype());
  auto* target = static_cast<std::byte*>(tensor.raw());
  copy_bytes(target, device, run.raw(), run.device(), run.bytes());
  std::size_t count = 0;
  for (std::size_t filled = run.bytes(); filled < tensor.bytes(); filled += count) {
    count = std::min(filled, tensor.bytes() - filled);
    copy_bytes(target + filled, device, target, device, count);
  }
}

}  // namespace

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  Tensor result;
  result.shape_ = shape;
  result.dtype_ = dtype;
  CINNABAR_CHECK(shape.numel() <= std::numeric_limits<std::int64_t>::max() / 8, "tensor", "shape ", shape,
                 " is too large to address");
  result.storage_ = std::make_shared<Storage>(result.bytes(), device);
  return result;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) {
  Tensor result = empty(shape, dtype, device);
  zero_bytes(result.raw(), device, result.bytes());
  return result;
}

Tensor Tensor::full(const Shape& shape, double value, DType dtype, Device device) {
  Tensor result = empty(shape, dtype, device);
  result.fill(value);
  return result;
}

Tensor Tensor::over(std::shared_ptr<Storage> storage, const Shape& shape, DType dtype) {
  Tensor result;
  result.storage_ = std::move(storage);
  result.shape_ = shape;
  result.dtype_ = dtype;
  CINNABAR_CHECK(result.defined(), "tensor", "no storage to lie over");
  CINNABAR_CHECK(shape.numel() <= std::numeric_limits<std::int64_t>::max() / 8 &&
                     result.bytes() <= result.storage_->bytes(),
                 "tensor", result, " does not fit ", result.storage_->bytes(), " bytes");
  CINNABAR_CHECK(reinterpret_cast<std::uintptr_t>(result.storage_->data()) % size_of(dtype) == 0, "tensor",
                 "the memory is not aligned to ", dtype);
  return result;
}

Tensor Tensor::empty_like(const Tensor& other) {
  return empty(other.shape(), other.dtype(), other.device());
}

Tensor Tensor::zeros_like(const Tensor& other) {
  return zeros(other.shape(), other.dtype(), other.device());
}

Device Tensor::device() const {
  CINNABAR_CHECK(defined(), "tensor", "device of an undefined tensor");
  return storage_->device();
}

void* Tensor::raw() {
  CINNABAR_CHECK(defined(), "tensor", "data of an undefined tensor");
  return static_cast<std::byte*>(storage_->data()) + offset_bytes_;
}

const void* Tensor::raw() const {
  return const_cast<Tensor*>(this)->raw();
}

Tensor Tensor::reshape(std::initializer_list<std::int64_t> extents) const {
  std::vector<std::int64_t> resolved(extents);
  std::int64_t known = 1;
  std::int64_t* open = nullptr;
  for (std::int64_t& extent : resolved) {
    if (extent == -1) {
      CINNABAR_CHECK(open == nullptr, "reshape", "more than one extent is -1");
      open = &extent;
    } else {
      known *= extent;
    }
  }
  if (open != nullptr) {
    CINNABAR_CHECK(known != 0 && numel() % known == 0, "reshape", "cannot infer an extent of ", *this);
    *open = numel() / known;
  }
  return reshape(Shape(resolved));
}

Tensor Tensor::reshape(const Shape& shape) const {
  CINNABAR_CHECK(shape.numel() == numel(), "reshape", *this, " does not fit shape ", shape);
  Tensor result = *this;
  result.shape_ = shape;
  return result;
}

Tensor Tensor::rows(std::int64_t first, std::int64_t count) const {
  CINNABAR_CHECK(rank() > 0 && first >= 0 && count >= 0 && first <= shape(0) - count, "rows", "rows ", first,
                 "..", first + count, " of ", *this);
  Tensor result = *this;
  result.shape_ = shape_.with(0, count);
  const std::int64_t row_elements = shape(0) == 0 ? 0 : numel() / shape(0);
  result.offset_bytes_ += static_cast<std::size_t>(first * row_elements) * size_of(dtype_);
  return result;
}

Tensor Tensor::clone() const {
  Tensor result = empty_like(*this);
  copy_bytes(result.raw(), device(), raw(), device(), bytes());
  return result;
}

Tensor Tensor::to(Device device) const {
  if (device == this->device()) return *this;
  Tensor result = empty(shape_, dtype_, device);
  copy_bytes(result.raw(), device, raw(), this->device(), bytes());
  return result;
}

Tensor Tensor::to(DType dtype) const {
  if (dtype == dtype_) return *this;
  const Tensor host = to(Device::cpu());
  Tensor result = empty(shape_, dtype);
  dispatch_any(dtype_, [&](auto from) {
    dispatch_any(dtype, [&](auto to) {
      const auto* source = host.data<decltype(from)>();
      auto* target = result.data<decltype(to)>();
      const std::int64_t count = numel();
      for (std::int64_t i = 0; i < count; ++i) target[i] = convert<decltype(to)>(source[i]);
    });
  });
  return result.to(device());
}

void Tensor::copy_from(const Tensor& source) {
  require_same_shape("copy_from", *this, source);
  require_dtype("copy_from", source, dtype_);
  copy_bytes(raw(), device(), source.raw(), source.device(), bytes());
}

void Tensor::fill(double value) {
  if (value == 0.0) return zero_bytes(raw(), device(), bytes());
  if (!device().is_cpu()) return fill_by_doubling(*this, value);
  dispatch_any(dtype_, [&](auto element) {
    auto* target = data<decltype(element)>();
    std::fill(target, target + numel(), convert<decltype(element)>(value));
  });
}

double Tensor::item() const {
  CINNABAR_CHECK(numel() == 1, "item", "needs one element, got ", *this);
  return to_vector<double>().front();
}

std::ostream& operator<<(std::ostream& out, const Tensor& tensor) {
  if (!tensor.defined()) return out << "undefined tensor";
  return out << tensor.dtype() << ' ' << tensor.shape() << " on " << tensor.device();
}

void require_same_device(const char* op, const Tensor& a, const Tensor& b) {
  CINNABAR_CHECK(a.device() == b.device(), op, "tensors on different devices: ", a, " and ", b);
}

void require_same_shape(const char* op, const Tensor& a, const Tensor& b) {
  CINNABAR_CHECK(a.shape() == b.shape(), op, "shapes differ: ", a, " and ", b);
}

void require_dtype(const char* op, const Tensor& a, DType dtype) {
  CINNABAR_CHECK(a.dtype() == dtype, op, "needs ", dtype, ", got ", a);
}

void require_floating(const char* op, const Tensor& a) {
  CINNABAR_CHECK(a.dtype() == DType::f32 || a.dtype() == DType::f64, op, "needs f32 or f64, got ", a);
}

}  // namespace cinnabar
