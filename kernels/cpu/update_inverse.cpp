#include "kernels/update_inverse.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/cpu/lattice.hpp"
#include "kernels/cpu/scatter.hpp"
#include "kernels/field_shape.hpp"
#include "kernels/parallel.hpp"

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

/// Slabs for scattering into a lattice: its planes, or its rows in volumes thinner than they are high.
struct SlabAxis {
  std::int64_t count, plane, row;
  bool along_z;

  SlabAxis(const FieldShape& shape, std::int64_t lattice_plane, std::int64_t lattice_row)
      : plane(lattice_plane), row(lattice_row), along_z(shape.d >= 16 || shape.d >= shape.h) {
    count = (along_z ? shape.d : shape.h) + 1;
  }
  std::int32_t slab_of(std::int64_t offset) const {
    return static_cast<std::int32_t>(along_z ? offset / plane : offset % plane / row);
  }
};

/// One addend of a gradient: where it goes and what.
template <class T>
struct Addend {
  cpu::Place<T> place;
  std::int32_t slab;
  T value[3];
};

/// What a row of voxels adds to the two gradients.
template <class T>
struct RowAddends {
  std::vector<Addend<T>> psi, increment;
};

/// Walks the N iterations of one voxel backwards. Iterations at one place (a fixed point or a 2-cycle) are
/// linear in the adjoint, so their addends are summed and emitted once.
template <class T>
class VoxelAdjoint {
 public:
  using Vector = typename VoxelInverse<T>::Vector;

  VoxelAdjoint(const VoxelInverse<T>& inverse, SlabAxis slabs, RowAddends<T>& out)
      : inverse_(inverse), slabs_(slabs), out_(out) {}

  /// Returns d loss / d u_psi(x) of the start of the iteration, rho_0 = u_psi(x).
  Vector run(std::int64_t x, int iterations, Vector adjoint) {
    const int last = trajectory(x, iterations);
    const T negligible = norm(adjoint) * (sizeof(T) == 4 ? T(1e-9) : T(1e-18));
    // Iterations last .. iterations - 1 all start at trajectory_[last], or alternate with the one before.
    Sums repeated[2];
    const bool alternates = cycle_ == 2;
    bool alive = !(norm(adjoint) <= T(0));
    for (int k = iterations - 1; alive && k >= last; --k) {
      const int back = alternates ? (k - last) % 2 : 0;
      step(x, trajectory_[last - back], adjoint, repeated[back]);
      alive = !(norm(adjoint) <= negligible);
    }
    for (const Sums& sums : repeated) emit(sums);
    for (int k = last - 1; alive && k >= 0; --k) {
      Sums sums{};
      step(x, trajectory_[k], adjoint, sums);
      emit(sums);
      alive = !(norm(adjoint) <= negligible);
    }
    return alive ? adjoint : Vector{};
  }

 private:
  struct Sums {
    cpu::Place<T> at_rho, at_back;
    bool rho_inside = false, back_inside = false, used = false;
    Vector to_increment{}, to_psi{};
  };

  /// Fills trajectory_ until it repeats; returns the last index to use and sets cycle_ (0: no repeat).
  int trajectory(std::int64_t x, int iterations) {
    cycle_ = 0;
    trajectory_[0] = inverse_.psi().voxel(inverse_.origin() + x);
    for (int k = 0; k < iterations; ++k) {
      inverse_.advance(x, trajectory_[k], trajectory_[k + 1]);
      if (same_bits(trajectory_[k + 1], trajectory_[k])) {
        cycle_ = 1;
        return k;
      }
      if (k > 0 && same_bits(trajectory_[k + 1], trajectory_[k - 1])) {
        cycle_ = 2;
        return k;
      }
    }
    return iterations;
  }

  /// A sum, so that NaN is never negligible.
  static T norm(const Vector& v) { return std::abs(v[0]) + std::abs(v[1]) + std::abs(v[2]); }

  static Vector transposed_times(const Vector (&slope)[3], const Vector& v) {
    Vector result{};
    for (int axis = 0; axis < 3; ++axis) {
      result[axis] = slope[axis][0] * v[0] + slope[axis][1] * v[1] + slope[axis][2] * v[2];
    }
    return result;
  }

  /// Reverses rho -> u_psi(x - w(x + rho)) - w(x + rho).
  void step(std::int64_t x, const Vector& rho, Vector& adjoint, Sums& sums) {
    Vector w{}, u, slope_w[3] = {}, slope_u[3] = {};
    sums.used = true;
    sums.rho_inside = inverse_.place(x, rho, sums.at_rho);
    if (sums.rho_inside) {
      inverse_.increment().sample_with_slopes(sums.at_rho, w, slope_w[0], slope_w[1], slope_w[2]);
    }
    const Vector back = -w;
    sums.back_inside = inverse_.place(x, back, sums.at_back);
    if (sums.back_inside) {
      inverse_.psi().sample_with_slopes(sums.at_back, u, slope_u[0], slope_u[1], slope_u[2]);
    }
    sums.to_psi += adjoint;
    const Vector of_w = -(adjoint + transposed_times(slope_u, adjoint));
    sums.to_increment += of_w;
    adjoint = transposed_times(slope_w, of_w);
  }

  void emit(const Sums& sums) {
    if (!sums.used) return;
    if (sums.back_inside) out_.psi.push_back(addend(sums.at_back, sums.to_psi));
    if (sums.rho_inside) out_.increment.push_back(addend(sums.at_rho, sums.to_increment));
  }

  Addend<T> addend(const cpu::Place<T>& at, const Vector& value) const {
    return {at, slabs_.slab_of(at.offset), {value[0], value[1], value[2]}};
  }

  const VoxelInverse<T>& inverse_;
  SlabAxis slabs_;
  RowAddends<T>& out_;
  Vector trajectory_[kMostIterations + 1];
  int cycle_ = 0;
};

template <class T>
void scatter_addends(const std::vector<RowAddends<T>>& rows, std::vector<Addend<T>> RowAddends<T>::*list,
                     const SlabAxis& slabs, cpu::Lattice<T, 4>& target) {
  std::vector<const Addend<T>*> items;
  for (const RowAddends<T>& row : rows) {
    for (const Addend<T>& addend : row.*list) items.push_back(&addend);
  }
  const auto find_slabs = [&](std::int64_t begin, std::int64_t end, std::int32_t* slab) {
    for (std::int64_t i = begin; i < end; ++i) *slab++ = items[static_cast<std::size_t>(i)]->slab;
  };
  const auto deposit = [&](std::span<const std::uint32_t> of_slab) {
    for (const std::uint32_t i : of_slab) {
      const Addend<T>& addend = *items[i];
      const typename VoxelInverse<T>::Vector value{addend.value[0], addend.value[1], addend.value[2], T(0)};
      target.scatter(addend.place, value);
    }
  };
  cpu::scatter_by_slab(static_cast<std::int64_t>(items.size()), slabs.count, find_slabs, deposit);
}

/// Gradients of one batch item, a group of planes at a time to bound the memory of the addends.
template <class T>
void reverse_item(const FieldShape& shape, const cpu::Lattice<T, 4>& psi, const cpu::Lattice<T, 4>& increment,
                  int iterations, const T* grad, cpu::Lattice<T, 4>& grad_psi,
                  cpu::Lattice<T, 4>& grad_increment) {
  constexpr std::int64_t kGroupVoxels = std::int64_t{1} << 19;
  const std::int64_t voxels = shape.voxels();
  const std::int64_t rows = shape.d * shape.h;
  const std::int64_t group = std::max<std::int64_t>(1, kGroupVoxels / shape.w);
  const SlabAxis slabs(shape, psi.plane(), psi.row());
  for (std::int64_t start = 0; start < rows; start += group) {
    const std::int64_t count = std::min(group, rows - start);
    std::vector<RowAddends<T>> addends(static_cast<std::size_t>(count));
    parallel_for(count, 4, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        const std::int64_t line = start + i;
        const VoxelInverse<T> inverse(psi, increment, shape, line / shape.h, line % shape.h);
        VoxelAdjoint<T> reverse(inverse, slabs, addends[static_cast<std::size_t>(i)]);
        const T* g = grad + line * shape.w;
        for (std::int64_t x = 0; x < shape.w; ++x) {
          const typename VoxelInverse<T>::Vector seed{g[x], g[voxels + x], g[2 * voxels + x], T(0)};
          grad_psi.voxel(inverse.origin() + x) += reverse.run(x, iterations, seed);
        }
      }
    });
    scatter_addends(addends, &RowAddends<T>::psi, slabs, grad_psi);
    scatter_addends(addends, &RowAddends<T>::increment, slabs, grad_increment);
  }
}

void backward(const Tensor& grad_updated, const Tensor& psi, const Tensor& increment, int iterations,
              Tensor& grad_psi, Tensor& grad_increment) {
  constexpr const char* kOp = "update_inverse_backward";
  const FieldShape shape = inverse_shape(kOp, psi, increment, iterations);
  require_field_like(kOp, "grad_updated", grad_updated, psi, 3);
  require_field_like(kOp, "grad_psi", grad_psi, psi, 3);
  require_field_like(kOp, "grad_increment", grad_increment, psi, 3);
  const std::int64_t field = 3 * shape.voxels();
  dispatch_floating(kOp, psi.dtype(), [&]<class T>(T) {
    cpu::Lattice<T, 4> packed_psi(shape.d, shape.h, shape.w), packed_increment(shape.d, shape.h, shape.w);
    cpu::Lattice<T, 4> sum_psi(shape.d, shape.h, shape.w), sum_increment(shape.d, shape.h, shape.w);
    for (std::int64_t n = 0; n < shape.n; ++n) {
      packed_psi.pack(psi.data<T>() + n * field, 3);
      packed_increment.pack(increment.data<T>() + n * field, 3);
      sum_psi.clear();
      sum_increment.clear();
      reverse_item(shape, packed_psi, packed_increment, iterations, grad_updated.data<T>() + n * field,
                   sum_psi, sum_increment);
      sum_psi.unpack(grad_psi.data<T>() + n * field, 3);
      sum_increment.unpack(grad_increment.data<T>() + n * field, 3);
    }
  });
}

}  // namespace

namespace cpu {
const UpdateInverse update_inverse{forward, backward};
}

}  // namespace cinnabar
