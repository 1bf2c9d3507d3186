#pragma once

// The arithmetic of one voxel of every EPDiff operator, shared by the CPU loops and the CUDA kernels. Field
// pointers point to the voxel in component x; the components y and z lie `plane` and 2 * plane further.

#include <cstdint>

#include "engine/host_device.hpp"
#include "kernels/stencil.hpp"

namespace cinnabar {

template <class T>
struct Matrix3 {
  T at[3][3];
};

/// J_ij = D_j h_i of h = id + u, half differences at faces.
template <class T>
CINNABAR_HD Matrix3<T> map_jacobian(const Stencil<T>& near, const T* u, std::int64_t plane) {
  Matrix3<T> j;
  CINNABAR_UNROLL
  for (int row = 0; row < 3; ++row) {
    CINNABAR_UNROLL
    for (int axis = 0; axis < 3; ++axis) {
      j.at[row][axis] = near.difference(u + row * plane, axis) + (row == axis ? near.identity[axis] : T(0));
    }
  }
  return j;
}

/// The same with one-sided differences at faces.
template <class T>
CINNABAR_HD Matrix3<T> map_jacobian_one_sided(const Stencil<T>& near, const T* u, std::int64_t plane) {
  Matrix3<T> j;
  CINNABAR_UNROLL
  for (int row = 0; row < 3; ++row) {
    CINNABAR_UNROLL
    for (int axis = 0; axis < 3; ++axis) {
      j.at[row][axis] =
          near.face_scale(axis) * near.difference(u + row * plane, axis) + (row == axis ? T(1) : T(0));
    }
  }
  return j;
}

/// Cofactor of (i, k): d det / d J_ik.
template <class T>
CINNABAR_HD T cofactor(const Matrix3<T>& j, int i, int k) {
  const int i1 = (i + 1) % 3, i2 = (i + 2) % 3;
  const int k1 = (k + 1) % 3, k2 = (k + 2) % 3;
  return j.at[i1][k1] * j.at[i2][k2] - j.at[i1][k2] * j.at[i2][k1];
}

template <class T>
CINNABAR_HD T determinant(const Matrix3<T>& j) {
  return j.at[0][0] * cofactor(j, 0, 0) + j.at[0][1] * cofactor(j, 0, 1) + j.at[0][2] * cofactor(j, 0, 2);
}

/// out = det(J) J^T s.
template <class T>
CINNABAR_HD void coad_voxel(const Matrix3<T>& j, const T (&s)[3], T (&out)[3]) {
  const T det = determinant(j);
  CINNABAR_UNROLL
  for (int i = 0; i < 3; ++i) out[i] = det * (j.at[0][i] * s[0] + j.at[1][i] * s[1] + j.at[2][i] * s[2]);
}

/// Gradients of coad_voxel in J and s.
template <class T>
CINNABAR_HD void coad_voxel_backward(const Matrix3<T>& j, const T (&s)[3], const T (&grad)[3],
                                     Matrix3<T>& grad_j, T (&grad_s)[3]) {
  const T det = determinant(j);
  T grad_det = T(0);
  CINNABAR_UNROLL
  for (int i = 0; i < 3; ++i) {
    grad_det += grad[i] * (j.at[0][i] * s[0] + j.at[1][i] * s[1] + j.at[2][i] * s[2]);
  }
  CINNABAR_UNROLL
  for (int k = 0; k < 3; ++k) {
    grad_s[k] = det * (j.at[k][0] * grad[0] + j.at[k][1] * grad[1] + j.at[k][2] * grad[2]);
    CINNABAR_UNROLL
    for (int i = 0; i < 3; ++i) grad_j.at[k][i] = grad_det * cofactor(j, k, i) + det * s[k] * grad[i];
  }
}

/// out_i = sum_j D_j(m_i v_j) + sum_j (D_i v_j) m_j.
template <class T>
CINNABAR_HD T coad_inf_voxel(const Stencil<T>& near, const T* v, const T* m, std::int64_t plane, int i) {
  T sum = T(0);
  CINNABAR_UNROLL
  for (int j = 0; j < 3; ++j) {
    sum += near.difference(m + i * plane, v + j * plane, j);
    sum += near.difference(v + j * plane, i) * m[j * plane];
  }
  return sum;
}

/// Gradients of coad_inf in v_k and m_k: D is linear, so each D_j(m_i v_j) gives (D_j^T g_i) times the other
/// factor, and (D_k v_j) m_j gives D^T of a product.
template <class T>
CINNABAR_HD T coad_inf_voxel_grad_velocity(const Stencil<T>& near, const T* g, const T* m, std::int64_t plane,
                                           int k) {
  T sum = T(0);
  CINNABAR_UNROLL
  for (int i = 0; i < 3; ++i) {
    sum += m[i * plane] * near.transposed(g + i * plane, k);
    sum += near.transposed(g + i * plane, m + k * plane, i);
  }
  return sum;
}
template <class T>
CINNABAR_HD T coad_inf_voxel_grad_momentum(const Stencil<T>& near, const T* g, const T* v, std::int64_t plane,
                                           int k) {
  T sum = T(0);
  CINNABAR_UNROLL
  for (int j = 0; j < 3; ++j) {
    sum += v[j * plane] * near.transposed(g + k * plane, j);
    sum += g[j * plane] * near.difference(v + k * plane, j);
  }
  return sum;
}

/// out_i = sum_j (D_j v_i) w_j and its gradients.
template <class T>
CINNABAR_HD T jacobian_times_vector_voxel(const Stencil<T>& near, const T* v, const T* w, std::int64_t plane,
                                          int i) {
  T sum = T(0);
  CINNABAR_UNROLL
  for (int j = 0; j < 3; ++j) sum += near.difference(v + i * plane, j) * w[j * plane];
  return sum;
}
template <class T>
CINNABAR_HD T jacobian_times_vector_voxel_grad_velocity(const Stencil<T>& near, const T* g, const T* w,
                                                        std::int64_t plane, int i) {
  T sum = T(0);
  CINNABAR_UNROLL
  for (int j = 0; j < 3; ++j) sum += near.transposed(g + i * plane, w + j * plane, j);
  return sum;
}
template <class T>
CINNABAR_HD T jacobian_times_vector_voxel_grad_vector(const Stencil<T>& near, const T* g, const T* v,
                                                      std::int64_t plane, int j) {
  T sum = T(0);
  CINNABAR_UNROLL
  for (int i = 0; i < 3; ++i) sum += g[i * plane] * near.difference(v + i * plane, j);
  return sum;
}

/// grad_u_k = sum_j D_j^T of channel 3 k + j of a Jacobian's gradient.
template <class T>
CINNABAR_HD T jacobian_voxel_backward(const Stencil<T>& near, const T* grad_jacobian, std::int64_t plane,
                                      int k) {
  T sum = T(0);
  CINNABAR_UNROLL
  for (int j = 0; j < 3; ++j) sum += near.transposed(grad_jacobian + (3 * k + j) * plane, j);
  return sum;
}

}  // namespace cinnabar
