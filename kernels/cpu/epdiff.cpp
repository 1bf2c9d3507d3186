#include "kernels/epdiff.hpp"

#include "kernels/cpu/stencil_runs.hpp"
#include "kernels/epdiff_voxel.hpp"
#include "kernels/warp.hpp"

namespace cinnabar {

namespace {

void image_gradient(const Tensor& image, Tensor& gradient) {
  const FieldShape shape = epdiff_shape("image_gradient", image, 1, gradient, 3);
  const std::int64_t plane = shape.voxels();
  dispatch_floating("image_gradient", image.dtype(), [&]<class T>(T) {
    const T* f = image.data<T>();
    T* out = gradient.data<T>();
    cpu::for_each_stencil<T>(shape, [=](const Stencil<T>& near, std::int64_t n, std::int64_t at) {
      CINNABAR_UNROLL
      for (int d = 0; d < 3; ++d) out[(3 * n + d) * plane + at] = near.difference(f + n * plane + at, d);
    });
  });
}

void image_gradient_backward(const Tensor& grad_gradient, Tensor& grad_image) {
  const FieldShape shape = epdiff_shape("image_gradient_backward", grad_gradient, 3, grad_image, 1);
  const std::int64_t plane = shape.voxels();
  dispatch_floating("image_gradient_backward", grad_image.dtype(), [&]<class T>(T) {
    const T* g = grad_gradient.data<T>();
    T* out = grad_image.data<T>();
    cpu::for_each_stencil<T>(shape, [=](const Stencil<T>& near, std::int64_t n, std::int64_t at) {
      const T* here = g + 3 * n * plane + at;
      out[n * plane + at] =
          near.transposed(here, 0) + near.transposed(here + plane, 1) + near.transposed(here + 2 * plane, 2);
    });
  });
}

void jacobian(const Tensor& displacement, Tensor& result) {
  const FieldShape shape = epdiff_shape("jacobian", displacement, 3, result, 9);
  const std::int64_t plane = shape.voxels();
  dispatch_floating("jacobian", displacement.dtype(), [&]<class T>(T) {
    const T* u = displacement.data<T>();
    T* out = result.data<T>();
    cpu::for_each_stencil<T>(shape, [=](const Stencil<T>& near, std::int64_t n, std::int64_t at) {
      const Matrix3<T> j = map_jacobian(near, u + 3 * n * plane + at, plane);
      CINNABAR_UNROLL
      for (int k = 0; k < 9; ++k) out[(9 * n + k) * plane + at] = j.at[k / 3][k % 3];
    });
  });
}

template <class T>
void gather_jacobian_gradient(const FieldShape& shape, const T* grad_jacobian, T* grad_displacement,
                              bool add) {
  const std::int64_t plane = shape.voxels();
  cpu::for_each_stencil<T>(shape, [=](const Stencil<T>& near, std::int64_t n, std::int64_t at) {
    CINNABAR_UNROLL
    for (int k = 0; k < 3; ++k) {
      T& target = grad_displacement[(3 * n + k) * plane + at];
      const T gathered = jacobian_voxel_backward(near, grad_jacobian + 9 * n * plane + at, plane, k);
      target = add ? target + gathered : gathered;
    }
  });
}

void jacobian_backward(const Tensor& grad_jacobian, Tensor& grad_displacement) {
  const FieldShape shape = epdiff_shape("jacobian_backward", grad_jacobian, 9, grad_displacement, 3);
  dispatch_floating("jacobian_backward", grad_jacobian.dtype(), [&]<class T>(T) {
    gather_jacobian_gradient(shape, grad_jacobian.data<T>(), grad_displacement.data<T>(), false);
  });
}

void jacobian_determinant(const Tensor& displacement, Tensor& result) {
  const FieldShape shape = epdiff_shape("jacobian_determinant", displacement, 3, result, 1);
  const std::int64_t plane = shape.voxels();
  dispatch_floating("jacobian_determinant", displacement.dtype(), [&]<class T>(T) {
    const T* u = displacement.data<T>();
    T* out = result.data<T>();
    cpu::for_each_stencil<T>(shape, [=](const Stencil<T>& near, std::int64_t n, std::int64_t at) {
      out[n * plane + at] = determinant(map_jacobian_one_sided(near, u + 3 * n * plane + at, plane));
    });
  });
}

void jacobian_determinant_backward(const Tensor& grad_determinant, const Tensor& displacement,
                                   Tensor& grad_displacement) {
  constexpr const char* kOp = "jacobian_determinant_backward";
  const FieldShape shape = epdiff_shape(kOp, displacement, 3, grad_determinant, 1);
  epdiff_shape(kOp, displacement, 3, grad_displacement, 3);
  const std::int64_t plane = shape.voxels();
  Tensor grad_jacobian = Tensor::empty(displacement.shape().with(1, 9), displacement.dtype());
  dispatch_floating(kOp, displacement.dtype(), [&]<class T>(T) {
    const T* g = grad_determinant.data<T>();
    const T* u = displacement.data<T>();
    T* grad_j = grad_jacobian.data<T>();
    cpu::for_each_stencil<T>(shape, [=](const Stencil<T>& near, std::int64_t n, std::int64_t at) {
      const Matrix3<T> j = map_jacobian_one_sided(near, u + 3 * n * plane + at, plane);
      CINNABAR_UNROLL
      for (int k = 0; k < 9; ++k) {
        grad_j[(9 * n + k) * plane + at] =
            g[n * plane + at] * near.face_scale(k % 3) * cofactor(j, k / 3, k % 3);
      }
    });
    gather_jacobian_gradient<T>(shape, grad_j, grad_displacement.data<T>(), false);
  });
}

void coad(const Tensor& displacement, const Tensor& momentum, Tensor& result) {
  const FieldShape shape = epdiff_shape("coad", displacement, momentum, result);
  const std::int64_t plane = shape.voxels();
  cpu::warp.forward(momentum, displacement, Boundary::zeros, result);
  dispatch_floating("coad", displacement.dtype(), [&]<class T>(T) {
    const T* u = displacement.data<T>();
    T* out = result.data<T>();
    cpu::for_each_stencil<T>(shape, [=](const Stencil<T>& near, std::int64_t n, std::int64_t at) {
      const std::int64_t here = 3 * n * plane + at;
      const Matrix3<T> j = map_jacobian(near, u + here, plane);
      const T sample[3] = {out[here], out[here + plane], out[here + 2 * plane]};
      T value[3];
      coad_voxel(j, sample, value);
      CINNABAR_UNROLL
      for (int i = 0; i < 3; ++i) out[here + i * plane] = value[i];
    });
  });
}

void coad_backward(const Tensor& grad_result, const Tensor& displacement, const Tensor& momentum,
                   Tensor& grad_displacement, Tensor& grad_momentum) {
  const FieldShape shape =
      epdiff_shape("coad_backward", grad_result, displacement, momentum, grad_displacement, grad_momentum);
  const std::int64_t plane = shape.voxels();
  Tensor grad_jacobian = Tensor::empty(displacement.shape().with(1, 9), displacement.dtype());
  Tensor sampled = Tensor::empty_like(momentum);
  cpu::warp.forward(momentum, displacement, Boundary::zeros, sampled);
  dispatch_floating("coad_backward", displacement.dtype(), [&]<class T>(T) {
    const T* g = grad_result.data<T>();
    const T* u = displacement.data<T>();
    T* grad_j = grad_jacobian.data<T>();
    T* sample = sampled.data<T>();  // becomes its own gradient, voxel by voxel
    cpu::for_each_stencil<T>(shape, [=](const Stencil<T>& near, std::int64_t n, std::int64_t at) {
      const std::int64_t here = 3 * n * plane + at;
      const Matrix3<T> j = map_jacobian(near, u + here, plane);
      const T s[3] = {sample[here], sample[here + plane], sample[here + 2 * plane]};
      const T grad[3] = {g[here], g[here + plane], g[here + 2 * plane]};
      Matrix3<T> of_j;
      T of_s[3];
      coad_voxel_backward(j, s, grad, of_j, of_s);
      CINNABAR_UNROLL
      for (int k = 0; k < 9; ++k) grad_j[(9 * n + k) * plane + at] = of_j.at[k / 3][k % 3];
      CINNABAR_UNROLL
      for (int i = 0; i < 3; ++i) sample[here + i * plane] = of_s[i];
    });
    cpu::warp.backward_displacement(sampled, momentum, displacement, Boundary::zeros, grad_displacement);
    cpu::warp.backward_input(sampled, displacement, Boundary::zeros, grad_momentum);
    gather_jacobian_gradient<T>(shape, grad_j, grad_displacement.data<T>(), true);
  });
}

/// result_i = kFormula(stencil, first, second, plane, i) at every voxel.
template <class T, auto kFormula>
void combine_fields(const FieldShape& shape, const Tensor& first, const Tensor& second, Tensor& result) {
  const T* a = first.data<T>();
  const T* b = second.data<T>();
  T* out = result.data<T>();
  const std::int64_t plane = shape.voxels();
  cpu::for_each_stencil<T>(shape, [=](const Stencil<T>& near, std::int64_t n, std::int64_t at) {
    const std::int64_t here = 3 * n * plane + at;
    CINNABAR_UNROLL
    for (int i = 0; i < 3; ++i) out[here + i * plane] = kFormula(near, a + here, b + here, plane, i);
  });
}

/// The same for both gradients in one pass: of the first field from grad_result and the second, of the second
/// from grad_result and the first.
template <class T, auto kGradFirst, auto kGradSecond>
void combine_fields_backward(const FieldShape& shape, const Tensor& grad_result, const Tensor& first,
                             const Tensor& second, Tensor& grad_first, Tensor& grad_second) {
  const T* g = grad_result.data<T>();
  const T* a = first.data<T>();
  const T* b = second.data<T>();
  T* grad_a = grad_first.data<T>();
  T* grad_b = grad_second.data<T>();
  const std::int64_t plane = shape.voxels();
  cpu::for_each_stencil<T>(shape, [=](const Stencil<T>& near, std::int64_t n, std::int64_t at) {
    const std::int64_t here = 3 * n * plane + at;
    CINNABAR_UNROLL
    for (int i = 0; i < 3; ++i) {
      grad_a[here + i * plane] = kGradFirst(near, g + here, b + here, plane, i);
      grad_b[here + i * plane] = kGradSecond(near, g + here, a + here, plane, i);
    }
  });
}

void coad_inf(const Tensor& velocity, const Tensor& momentum, Tensor& result) {
  const FieldShape shape = epdiff_shape("coad_inf", velocity, momentum, result);
  dispatch_floating("coad_inf", velocity.dtype(), [&]<class T>(T) {
    combine_fields<T, coad_inf_voxel<T>>(shape, velocity, momentum, result);
  });
}

void coad_inf_backward(const Tensor& grad_result, const Tensor& velocity, const Tensor& momentum,
                       Tensor& grad_velocity, Tensor& grad_momentum) {
  constexpr const char* kOp = "coad_inf_backward";
  const FieldShape shape = epdiff_shape(kOp, grad_result, velocity, momentum, grad_velocity, grad_momentum);
  dispatch_floating(kOp, velocity.dtype(), [&]<class T>(T) {
    combine_fields_backward<T, coad_inf_voxel_grad_velocity<T>, coad_inf_voxel_grad_momentum<T>>(
        shape, grad_result, velocity, momentum, grad_velocity, grad_momentum);
  });
}

void jacobian_times_vector(const Tensor& velocity, const Tensor& vector, Tensor& result) {
  const FieldShape shape = epdiff_shape("jacobian_times_vector", velocity, vector, result);
  dispatch_floating("jacobian_times_vector", velocity.dtype(), [&]<class T>(T) {
    combine_fields<T, jacobian_times_vector_voxel<T>>(shape, velocity, vector, result);
  });
}

void jacobian_times_vector_backward(const Tensor& grad_result, const Tensor& velocity, const Tensor& vector,
                                    Tensor& grad_velocity, Tensor& grad_vector) {
  constexpr const char* kOp = "jacobian_times_vector_backward";
  const FieldShape shape = epdiff_shape(kOp, grad_result, velocity, vector, grad_velocity, grad_vector);
  dispatch_floating(kOp, velocity.dtype(), [&]<class T>(T) {
    combine_fields_backward<T, jacobian_times_vector_voxel_grad_velocity<T>,
                            jacobian_times_vector_voxel_grad_vector<T>>(shape, grad_result, velocity, vector,
                                                                        grad_velocity, grad_vector);
  });
}

}  // namespace

namespace cpu {
const Epdiff epdiff{image_gradient,
                    image_gradient_backward,
                    jacobian,
                    jacobian_backward,
                    jacobian_determinant,
                    jacobian_determinant_backward,
                    coad,
                    coad_backward,
                    coad_inf,
                    coad_inf_backward,
                    jacobian_times_vector,
                    jacobian_times_vector_backward};
}

}  // namespace cinnabar
