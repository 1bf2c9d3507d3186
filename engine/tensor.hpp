#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/device.hpp"
#include "engine/dtype.hpp"
#include "engine/error.hpp"
#include "engine/shape.hpp"
#include "engine/storage.hpp"

namespace cinnabar {

/// A contiguous row-major array with a shape, a dtype and a device. Copying a Tensor shares its storage;
/// `clone` copies the values. A default-constructed Tensor is undefined.
class Tensor {
 public:
  Tensor() = default;

  static Tensor empty(const Shape& shape, DType dtype = DType::f32, Device device = Device::cpu());
  static Tensor zeros(const Shape& shape, DType dtype = DType::f32, Device device = Device::cpu());
  static Tensor full(const Shape& shape, double value, DType dtype = DType::f32,
                     Device device = Device::cpu());
  /// A CPU tensor holding the given values in row-major order.
  template <class T>
  static Tensor from(const std::vector<T>& values, const Shape& shape);
  /// A tensor over the first bytes of a block, which it shares. The block must be aligned to the dtype.
  static Tensor over(std::shared_ptr<Storage> storage, const Shape& shape, DType dtype);
  /// An uninitialised tensor of the same shape, dtype and device.
  static Tensor empty_like(const Tensor& other);
  static Tensor zeros_like(const Tensor& other);

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  std::int64_t shape(int axis) const { return shape_[axis]; }
  int rank() const { return shape_.rank(); }
  std::int64_t numel() const { return shape_.numel(); }
  DType dtype() const { return dtype_; }
  Device device() const;
  std::size_t bytes() const { return static_cast<std::size_t>(numel()) * size_of(dtype_); }

  void* raw();
  const void* raw() const;
  /// First element; throws unless T is this tensor's dtype. The memory is on `device()`.
  template <class T>
  T* data();
  template <class T>
  const T* data() const;

  /// Shares storage under another shape of equal size; one extent may be -1.
  Tensor reshape(std::initializer_list<std::int64_t> extents) const;
  Tensor reshape(const Shape& shape) const;
  /// Rows first..first+count-1 of the outermost axis, sharing storage.
  Tensor rows(std::int64_t first, std::int64_t count) const;

  Tensor clone() const;
  Tensor to(Device device) const;
  /// Converts element by element with round-to-nearest; integers saturate. Runs on the CPU.
  Tensor to(DType dtype) const;
  /// Overwrites the values with those of a tensor of equal shape and dtype on any device.
  void copy_from(const Tensor& source);
  void fill(double value);

  /// The only element of a one-element tensor, from any device.
  double item() const;
  /// All values, converted, from any device.
  template <class T>
  std::vector<T> to_vector() const;

 private:
  std::shared_ptr<Storage> storage_;
  std::size_t offset_bytes_ = 0;
  Shape shape_;
  DType dtype_ = DType::f32;
};

/// "f32 [1, 3, 4] on cpu", for messages.
std::ostream& operator<<(std::ostream& out, const Tensor& tensor);

/// Throws unless both agree; `op` and the names go into the message.
void require_same_device(const char* op, const Tensor& a, const Tensor& b);
void require_same_shape(const char* op, const Tensor& a, const Tensor& b);
void require_dtype(const char* op, const Tensor& a, DType dtype);
void require_floating(const char* op, const Tensor& a);

template <class T>
T* Tensor::data() {
  CINNABAR_CHECK(defined(), "tensor", "data of an undefined tensor");
  CINNABAR_CHECK(dtype_ == dtype_of<T>, "tensor", "asked for ", dtype_of<T>, " data of ", *this);
  return static_cast<T*>(raw());
}

template <class T>
const T* Tensor::data() const {
  return const_cast<Tensor*>(this)->data<T>();
}

template <class T>
Tensor Tensor::from(const std::vector<T>& values, const Shape& shape) {
  CINNABAR_CHECK(static_cast<std::int64_t>(values.size()) == shape.numel(), "tensor", values.size(),
                 " values for shape ", shape);
  Tensor result = empty(shape, dtype_of<T>);
  copy_bytes(result.raw(), Device::cpu(), values.data(), Device::cpu(), result.bytes());
  return result;
}

template <class T>
std::vector<T> Tensor::to_vector() const {
  const Tensor host = to(Device::cpu()).to(dtype_of<T>);
  const T* first = host.data<T>();
  return std::vector<T>(first, first + host.numel());
}

/// Calls fn with a value-initialised float or double according to the dtype; throws on any other.
template <class Function>
decltype(auto) dispatch_floating(const char* op, DType dtype, Function&& fn) {
  switch (dtype) {
    case DType::f32:
      return fn(float{});
    case DType::f64:
      return fn(double{});
    default:
      fail(op, detail::concat("needs f32 or f64, got ", dtype));
  }
}

}  // namespace cinnabar
