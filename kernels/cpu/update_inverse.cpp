#include "kernels/update_inverse.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/cpu/lattice.hpp"
#include "kernels/field_shape.hpp"
#include "kernels/parallel.hpp"
#include "kernels/solve_3x3.hpp"
#include "kernels/warp.hpp"

namespace cinnabar {

namespace {

constexpr int kMostIterations = 64;

/// One voxel's view of the two fields: rho_{k+1} = u_psi(x - w_k) - w_k with w_k = w(x + rho_k).
template <class T>
class VoxelInverse {
 public:
  using Field = cpu::Lattice<T, 4>;
  using Vector = typename Field::Voxel;

  VoxelInverse(const Field& psi, const Field& increment, const FieldShape& shape, std::int64_t z,
               std::int64_t y)
      : psi_(psi), increment_(increment), origin_(psi.offset(z, y, 0)) {
    const std::int64_t voxel[3] = {0, y, z};
    const std::int64_t extent[3] = {shape.w, shape.h, shape.d};
    for (int axis = 0; axis < 3; ++axis) {
      lowest_[axis] = static_cast<T>(-1 - voxel[axis]);
      highest_[axis] = static_cast<T>(extent[axis] - 1 - voxel[axis]);
    }
  }

  /// Cell of x + displacement for voxel x of the row. False where all its corners lie outside the grid.
  [[gnu::always_inline]] bool place(std::int64_t x, const Vector& displacement, cpu::Place<T>& at) const {
    const T whole_x = std::floor(displacement[0]);
    const T whole_y = std::floor(displacement[1]);
    const T whole_z = std::floor(displacement[2]);
    const T along_x = whole_x + static_cast<T>(x);
    const bool inside = (along_x >= lowest_[0]) & (along_x <= highest_[0]) & (whole_y >= lowest_[1]) &
                        (whole_y <= highest_[1]) & (whole_z >= lowest_[2]) & (whole_z <= highest_[2]);
    if (!inside) [[unlikely]]
      return false;
    at.offset = origin_ + x + static_cast<std::int32_t>(whole_x) +
                static_cast<std::int32_t>(whole_y) * psi_.row() +
                static_cast<std::int32_t>(whole_z) * psi_.plane();
    at.fraction_x = displacement[0] - whole_x;
    at.fraction_y = displacement[1] - whole_y;
    at.fraction_z = displacement[2] - whole_z;
    return true;
  }

  /// What a sample outside is: zero, or NaN for a position that is not a number.
  static Vector outside(const Vector& displacement) {
    const T sum = displacement[0] + displacement[1] + displacement[2];
    return Vector{} + (sum == sum ? T(0) : sum);
  }

  [[gnu::always_inline]] void advance(std::int64_t x, const Vector& rho, Vector& next) const {
    cpu::Place<T> at;
    Vector w, u;
    if (place(x, rho, at)) [[likely]] {
      increment_.sample(at, w);
    } else {
      w = outside(rho);
    }
    const Vector back = -w;
    if (place(x, back, at)) [[likely]] {
      psi_.sample(at, u);
    } else {
      u = outside(back);
    }
    next = u - w;
  }

  const Field& psi() const { return psi_; }
  const Field& increment() const { return increment_; }
  std::int64_t origin() const { return origin_; }

 private:
  const Field& psi_;
  const Field& increment_;
  std::int64_t origin_;
  T lowest_[3];
  T highest_[3];
};

template <class Vector>
bool same_bits(const Vector& a, const Vector& b) {
  return std::memcmp(&a, &b, sizeof(Vector)) == 0;
}

template <class T>
struct Iterate {
  typename VoxelInverse<T>::Vector rho, previous;
};

/// Iterates all voxels of a row together, so that the chains of dependent samples of several voxels overlap,
/// and drops a voxel from the list as soon as it repeats.
template <class T>
void update_row(const VoxelInverse<T>& inverse, std::int64_t width, int iterations,
                std::vector<Iterate<T>>& state, std::vector<std::int32_t>& active, T* target,
                std::int64_t stride) {
  using Vector = typename VoxelInverse<T>::Vector;
  state.resize(static_cast<std::size_t>(width));
  active.resize(static_cast<std::size_t>(width));
  for (std::int32_t x = 0; x < width; ++x) {
    state[static_cast<std::size_t>(x)].rho = inverse.psi().voxel(inverse.origin() + x);
    active[static_cast<std::size_t>(x)] = x;
  }
  std::size_t count = active.size();
  for (int k = 0; k < iterations && count > 0; ++k) {
    std::size_t kept = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const std::int32_t x = active[i];
      Iterate<T>& voxel = state[static_cast<std::size_t>(x)];
      Vector next;
      inverse.advance(x, voxel.rho, next);
      if (same_bits(next, voxel.rho)) continue;
      if (k > 0 && same_bits(next, voxel.previous)) {
        // A 2-cycle: the full loop would end on `next` if an even number of iterations is left.
        if ((iterations - k - 1) % 2 == 0) voxel.rho = next;
        continue;
      }
      voxel.previous = voxel.rho;
      voxel.rho = next;
      active[kept++] = x;
    }
    count = kept;
  }
  for (int c = 0; c < 3; ++c) {
    for (std::int64_t x = 0; x < width; ++x)
      target[c * stride + x] = state[static_cast<std::size_t>(x)].rho[c];
  }
}

FieldShape inverse_shape(const char* op, const Tensor& psi, const Tensor& increment, int iterations) {
  const FieldShape shape = field_shape(op, "psi", psi, 3);
  require_field_like(op, "increment", increment, psi, 3);
  CINNABAR_CHECK(iterations >= 0 && iterations <= kMostIterations, op, "iterations must be in 0..",
                 kMostIterations, ", got ", iterations);
  return shape;
}

void forward(const Tensor& psi, const Tensor& increment, int iterations, Tensor& updated) {
  const FieldShape shape = inverse_shape("update_inverse", psi, increment, iterations);
  require_field_like("update_inverse", "updated", updated, psi, 3);
  const std::int64_t voxels = shape.voxels();
  dispatch_floating("update_inverse", psi.dtype(), [&]<class T>(T) {
    cpu::Lattice<T, 4> packed_psi(shape.d, shape.h, shape.w);
    cpu::Lattice<T, 4> packed_increment(shape.d, shape.h, shape.w);
    for (std::int64_t n = 0; n < shape.n; ++n) {
      packed_psi.pack(psi.data<T>() + n * 3 * voxels, 3);
      packed_increment.pack(increment.data<T>() + n * 3 * voxels, 3);
      T* target = updated.data<T>() + n * 3 * voxels;
      parallel_for(shape.d * shape.h, 8, [&](std::int64_t first, std::int64_t last) {
        std::vector<Iterate<T>> state;
        std::vector<std::int32_t> active;
        for (std::int64_t line = first; line < last; ++line) {
          const VoxelInverse<T> inverse(packed_psi, packed_increment, shape, line / shape.h, line % shape.h);
          update_row(inverse, shape.w, iterations, state, active, target + line * shape.w, voxels);
        }
      });
    }
  });
}

/// Slope matrix times a vector from the left: result_axis = sum_c (d field_c / d axis) v_c.
template <class Vector>
Vector transposed_times(const Vector (&slope)[3], const Vector& v) {
  Vector result{};
  for (int axis = 0; axis < 3; ++axis) {
    result[axis] = slope[axis][0] * v[0] + slope[axis][1] * v[1] + slope[axis][2] * v[2];
  }
  return result;
}

/// What one voxel sends back: `to_psi` to the cell at `back`, `to_increment` to the cell at psi'.
template <class T>
struct VoxelAdjoint {
  using Vector = typename VoxelInverse<T>::Vector;
  Vector back{}, to_psi{}, to_increment{};

  VoxelAdjoint(const VoxelInverse<T>& inverse, std::int64_t x, const Vector& rho, const Vector& grad) {
    Vector w{}, u{}, slope_w[3] = {}, slope_u[3] = {};
    cpu::Place<T> at;
    if (inverse.place(x, rho, at)) {
      inverse.increment().sample_with_slopes(at, w, slope_w[0], slope_w[1], slope_w[2]);
    }
    back = -w;
    if (inverse.place(x, back, at)) {
      inverse.psi().sample_with_slopes(at, u, slope_u[0], slope_u[1], slope_u[2]);
    }
    T system[9];  // (I + A Dw)^T, row by row: entry (i, j) is delta_ij + sum_k A_jk d w_k / d i
    for (int i = 0; i < 3; ++i) {
      for (int j = 0; j < 3; ++j) {
        const T through = slope_w[i][j] + slope_w[i][0] * slope_u[0][j] + slope_w[i][1] * slope_u[1][j] +
                          slope_w[i][2] * slope_u[2][j];
        system[3 * i + j] = (i == j ? T(1) : T(0)) + through;
      }
    }
    const T right[3] = {grad[0], grad[1], grad[2]};
    T solution[3];
    solve_3x3(system, right, solution);
    to_psi = Vector{solution[0], solution[1], solution[2], T(0)};
    to_increment = -(to_psi + transposed_times(slope_u, to_psi));
  }
};

/// The parts of the gradient as fields: vectors and where they go, for Warp's transpose to spread.
template <class T>
void reverse_voxels(const FieldShape& shape, const cpu::Lattice<T, 4>& psi,
                    const cpu::Lattice<T, 4>& increment, const T* updated, const T* grad, T* back, T* to_psi,
                    T* to_increment) {
  const std::int64_t voxels = shape.voxels();
  parallel_for(shape.d * shape.h, 8, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t line = first; line < last; ++line) {
      const VoxelInverse<T> inverse(psi, increment, shape, line / shape.h, line % shape.h);
      for (std::int64_t x = 0; x < shape.w; ++x) {
        const std::int64_t at = line * shape.w + x;
        const auto vector_of = [&](const T* field) {
          return
              typename VoxelInverse<T>::Vector{field[at], field[voxels + at], field[2 * voxels + at], T(0)};
        };
        const VoxelAdjoint<T> adjoint(inverse, x, vector_of(updated), vector_of(grad));
        for (int c = 0; c < 3; ++c) {
          back[c * voxels + at] = adjoint.back[c];
          to_psi[c * voxels + at] = adjoint.to_psi[c];
          to_increment[c * voxels + at] = adjoint.to_increment[c];
        }
      }
    }
  });
}

void backward(const Tensor& grad_updated, const Tensor& psi, const Tensor& increment, const Tensor& updated,
              Tensor& grad_psi, Tensor& grad_increment) {
  constexpr const char* kOp = "update_inverse_backward";
  const FieldShape shape = inverse_shape(kOp, psi, increment, 0);
  require_field_like(kOp, "grad_updated", grad_updated, psi, 3);
  require_field_like(kOp, "updated", updated, psi, 3);
  require_field_like(kOp, "grad_psi", grad_psi, psi, 3);
  require_field_like(kOp, "grad_increment", grad_increment, psi, 3);
  const std::int64_t field = 3 * shape.voxels();
  Tensor back = Tensor::empty_like(psi), to_psi = Tensor::empty_like(psi),
         to_increment = Tensor::empty_like(psi);
  dispatch_floating(kOp, psi.dtype(), [&]<class T>(T) {
    cpu::Lattice<T, 4> packed_psi(shape.d, shape.h, shape.w), packed_increment(shape.d, shape.h, shape.w);
    for (std::int64_t n = 0; n < shape.n; ++n) {
      const std::int64_t item = n * field;
      packed_psi.pack(psi.data<T>() + item, 3);
      packed_increment.pack(increment.data<T>() + item, 3);
      reverse_voxels(shape, packed_psi, packed_increment, updated.data<T>() + item,
                     grad_updated.data<T>() + item, back.data<T>() + item, to_psi.data<T>() + item,
                     to_increment.data<T>() + item);
    }
  });
  cpu::warp.backward_input(to_psi, back, Boundary::zeros, grad_psi);
  cpu::warp.backward_input(to_increment, updated, Boundary::zeros, grad_increment);
}

}  // namespace

namespace cpu {
const UpdateInverse update_inverse{forward, backward};
}

}  // namespace cinnabar
