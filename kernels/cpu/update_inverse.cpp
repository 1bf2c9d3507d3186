#include "kernels/update_inverse.hpp"

#include <algorithm>
#include <bit>
#include <type_traits>

#include "kernels/cpu/lattice.hpp"
#include "kernels/cpu/place_row.hpp"
#include "kernels/parallel.hpp"
#include "kernels/solve_3x3.hpp"
#include "kernels/warp.hpp"

namespace cinnabar {

namespace {

constexpr std::int64_t kLength = cpu::PlaceRow<float>::kLength;

/// Displacements of the voxels of a piece of a row, component by component.
template <class T>
struct Positions {
  T at[3][kLength];

  template <class Vector>
  void put(std::int64_t i, const Vector& value) {
    for (int c = 0; c < 3; ++c) at[c][i] = value[c];
  }
};

/// Bits of a and b differ in voxel i: nonzero. Integers, so that loops over i vectorise.
template <class T>
auto difference(const Positions<T>& a, const Positions<T>& b, std::int64_t i) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  Bits different = 0;
  for (int c = 0; c < 3; ++c) different |= std::bit_cast<Bits>(a.at[c][i]) ^ std::bit_cast<Bits>(b.at[c][i]);
  return different;
}

/// The two fields as a row of voxels sees them: rho_{k+1} = u_psi(x - w_k) - w_k with w_k = w(x + rho_k).
/// Works on up to kLength voxels at once, so that cells are found by vector instructions and the chains of
/// dependent samples of different voxels overlap.
template <class T>
class RowInverse {
 public:
  using Field = cpu::Lattice<T, 4>;
  using Vector = typename Field::Voxel;

  RowInverse(const Field& psi, const Field& increment, std::int64_t z, std::int64_t y)
      : psi_(psi), increment_(increment), z_(z), y_(y) {}

  void locate(const std::int32_t* voxel, const Positions<T>& displacement, std::int64_t count,
              cpu::PlaceRow<T>& places) const {
    const auto x_of = [voxel](std::int64_t i) { return voxel[i]; };
    places.template locate<Boundary::zeros>(psi_, x_of, y_, z_, displacement.at[0], displacement.at[1],
                                            displacement.at[2], count);
  }

  /// One iteration of `count` voxels; `back` becomes -w.
  void advance(const std::int32_t* voxel, const Positions<T>& rho, std::int64_t count, Positions<T>& back,
               Positions<T>& next) const {
    cpu::PlaceRow<T> places;
    Vector w[kLength];
    locate(voxel, rho, count, places);
    sample(increment_, places, count, [&](std::int64_t i, const Vector& value) {
      w[i] = value;
      back.put(i, -value);
    });
    locate(voxel, back, count, places);
    sample(psi_, places, count, [&](std::int64_t i, const Vector& value) { next.put(i, value - w[i]); });
  }

  const Field& psi() const { return psi_; }
  const Field& increment() const { return increment_; }
  std::int64_t offset(std::int64_t x) const { return psi_.offset(z_, y_, x); }

 private:
  template <class Take>
  static void sample(const Field& field, const cpu::PlaceRow<T>& places, std::int64_t count,
                     const Take& take) {
    const bool all_inside = places.all_inside(count);
    for (std::int64_t i = 0; i < count; ++i) {
      Vector value;
      if (all_inside || places.inside[i]) {
        field.sample(places[i], value);
      } else {
        value = Vector{} + places.outside_value(i);
      }
      take(i, value);
    }
  }

  const Field& psi_;
  const Field& increment_;
  std::int64_t z_, y_;
};

/// Iterates the voxels x0 .. x0 + count - 1 of a row and drops a voxel as soon as it repeats.
template <class T>
void update_piece(const RowInverse<T>& row, std::int64_t x0, std::int64_t count, int iterations, T* target,
                  std::int64_t stride) {
  Positions<T> buffers[3], back;
  Positions<T>*rho = &buffers[0], *previous = &buffers[1], *next = &buffers[2];
  std::int32_t voxel[kLength];
  for (std::int64_t i = 0; i < count; ++i) {
    voxel[i] = static_cast<std::int32_t>(x0 + i);
    rho->put(i, row.psi().voxel(row.offset(x0 + i)));
  }
  *previous = *rho;
  const auto finish = [&](const Positions<T>& result, std::int64_t i) {
    for (int c = 0; c < 3; ++c) target[c * stride + voxel[i] - x0] = result.at[c][i];
  };
  std::int64_t active = count;
  for (int k = 0; k < iterations && active > 0; ++k) {
    row.advance(voxel, *rho, active, back, *next);
    std::int64_t finished = 0;
    bool done[kLength];
    for (std::int64_t i = 0; i < active; ++i) {
      done[i] = (difference(*next, *rho, i) == 0) | (difference(*next, *previous, i) == 0);
      finished += done[i];
    }
    if (finished == 0) {
      std::swap(previous, rho);
      std::swap(rho, next);
      continue;
    }
    // Left in a cycle of one or two positions, the full loop would end on `next` or on `rho`.
    const Positions<T>& last = (iterations - k - 1) % 2 == 0 ? *next : *rho;
    std::int64_t kept = 0;
    for (std::int64_t i = 0; i < active; ++i) {
      if (done[i]) {
        finish(last, i);
        continue;
      }
      for (int c = 0; c < 3; ++c) {
        previous->at[c][kept] = rho->at[c][i];
        rho->at[c][kept] = next->at[c][i];
      }
      voxel[kept++] = voxel[i];
    }
    active = kept;
  }
  for (std::int64_t i = 0; i < active; ++i) finish(*rho, i);
}

/// Calls body(row, x0, count, offset of the first voxel in the fields' component x) for all pieces of rows.
template <class T, class Body>
void for_each_piece(const FieldShape& shape, const Tensor& psi, const Tensor& increment, const Body& body) {
  cpu::Lattice<T, 4> packed_psi(shape.d, shape.h, shape.w);
  cpu::Lattice<T, 4> packed_increment(shape.d, shape.h, shape.w);
  for (std::int64_t n = 0; n < shape.n; ++n) {
    const std::int64_t item = n * 3 * shape.voxels();
    packed_psi.pack(psi.data<T>() + item, 3);
    packed_increment.pack(increment.data<T>() + item, 3);
    parallel_for(shape.d * shape.h, 8, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t line = first; line < last; ++line) {
        const RowInverse<T> row(packed_psi, packed_increment, line / shape.h, line % shape.h);
        for (std::int64_t x0 = 0; x0 < shape.w; x0 += kLength) {
          body(row, x0, std::min(kLength, shape.w - x0), item + line * shape.w + x0);
        }
      }
    });
  }
}

void forward(const Tensor& psi, const Tensor& increment, int iterations, Tensor& updated) {
  const FieldShape shape = update_inverse_shape(psi, increment, iterations, updated);
  dispatch_floating("update_inverse", psi.dtype(), [&]<class T>(T) {
    for_each_piece<T>(shape, psi, increment,
                      [&](const RowInverse<T>& row, std::int64_t x0, std::int64_t count, std::int64_t at) {
                        update_piece(row, x0, count, iterations, updated.data<T>() + at, shape.voxels());
                      });
  });
}

/// The gradient of a piece of a row in parts: vectors (to_psi, to_increment) and where to_psi goes (back).
template <class T>
struct Parts {
  T *back, *to_psi, *to_increment;
};

/// Slopes of a sampled field, [axis][component], of the voxels of a piece.
template <class T>
struct Slopes {
  T at[3][3][kLength];

  template <class Vector>
  void put(std::int64_t i, const Vector (&slope)[3]) {
    for (int axis = 0; axis < 3; ++axis) {
      for (int c = 0; c < 3; ++c) at[axis][c][i] = slope[axis][c];
    }
  }
};

/// Solves (I + A Dw)^T a = grad with A = I + Du for every voxel; a is to_psi and -A^T a is to_increment.
template <class T>
void solve_adjoints(const Slopes<T>& of_psi, const Slopes<T>& of_increment, std::int64_t count, const T* grad,
                    std::int64_t stride, const Parts<T>& parts) {
#pragma GCC ivdep
  for (std::int64_t i = 0; i < count; ++i) {
    T system[9];  // row by row: entry (r, c) is delta_rc + sum_k A_ck d w_k / d r
    CINNABAR_UNROLL
    for (int r = 0; r < 3; ++r) {
      CINNABAR_UNROLL
      for (int c = 0; c < 3; ++c) {
        T sum = of_increment.at[r][c][i] + (r == c ? T(1) : T(0));
        CINNABAR_UNROLL
        for (int k = 0; k < 3; ++k) sum += of_increment.at[r][k][i] * of_psi.at[k][c][i];
        system[3 * r + c] = sum;
      }
    }
    const T right[3] = {grad[i], grad[stride + i], grad[2 * stride + i]};
    T a[3];
    solve_3x3(system, right, a);
    CINNABAR_UNROLL
    for (int c = 0; c < 3; ++c) {
      const T through_psi = of_psi.at[c][0][i] * a[0] + of_psi.at[c][1][i] * a[1] + of_psi.at[c][2][i] * a[2];
      parts.to_psi[c * stride + i] = a[c];
      parts.to_increment[c * stride + i] = -(a[c] + through_psi);
    }
  }
}

template <class T>
void reverse_piece(const RowInverse<T>& row, std::int64_t x0, std::int64_t count, const T* updated,
                   const T* grad, std::int64_t stride, const Parts<T>& parts) {
  using Vector = typename RowInverse<T>::Vector;
  std::int32_t voxel[kLength];
  Positions<T> position;
  for (std::int64_t i = 0; i < count; ++i) voxel[i] = static_cast<std::int32_t>(x0 + i);
  for (int c = 0; c < 3; ++c) std::copy_n(updated + c * stride, count, position.at[c]);
  cpu::PlaceRow<T> places;
  Slopes<T> of_psi, of_increment;
  row.locate(voxel, position, count, places);
  for (std::int64_t i = 0; i < count; ++i) {
    Vector w = Vector{} + places.outside_value(i);
    Vector slope[3] = {};
    if (places.inside[i]) {
      row.increment().sample(places[i], w);
      row.increment().slopes(places[i], slope);
    }
    position.put(i, -w);
    of_increment.put(i, slope);
  }
  row.locate(voxel, position, count, places);
  for (std::int64_t i = 0; i < count; ++i) {
    Vector slope[3] = {};
    if (places.inside[i]) row.psi().slopes(places[i], slope);
    of_psi.put(i, slope);
  }
  for (int c = 0; c < 3; ++c) std::copy_n(position.at[c], count, parts.back + c * stride);
  solve_adjoints(of_psi, of_increment, count, grad, stride, parts);
}

void backward(const Tensor& grad_updated, const Tensor& psi, const Tensor& increment, const Tensor& updated,
              Tensor& grad_psi, Tensor& grad_increment) {
  const FieldShape shape =
      update_inverse_backward_shape(grad_updated, psi, increment, updated, grad_psi, grad_increment);
  Tensor back = Tensor::empty_like(psi), to_psi = Tensor::empty_like(psi),
         to_increment = Tensor::empty_like(psi);
  dispatch_floating("update_inverse_backward", psi.dtype(), [&]<class T>(T) {
    for_each_piece<T>(
        shape, psi, increment,
        [&](const RowInverse<T>& row, std::int64_t x0, std::int64_t count, std::int64_t at) {
          reverse_piece(row, x0, count, updated.data<T>() + at, grad_updated.data<T>() + at, shape.voxels(),
                        Parts<T>{back.data<T>() + at, to_psi.data<T>() + at, to_increment.data<T>() + at});
        });
  });
  cpu::warp.backward_input(to_psi, back, Boundary::zeros, grad_psi);
  cpu::warp.backward_input(to_increment, updated, Boundary::zeros, grad_increment);
}

}  // namespace

namespace cpu {
const UpdateInverse update_inverse{forward, backward};
}

}  // namespace cinnabar
