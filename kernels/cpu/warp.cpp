#include "kernels/warp.hpp"

#include <algorithm>

#include "kernels/cpu/lattice.hpp"
#include "kernels/cpu/place_row.hpp"
#include "kernels/cpu/scatter.hpp"
#include "kernels/field_shape.hpp"
#include "kernels/parallel.hpp"

namespace cinnabar {

namespace {

/// Rows a thread takes at a time.
constexpr std::int64_t kRowGrain = 16;

/// Calls body(z, y, x0, count) over all rows of a grid in pieces of at most PlaceRow's length.
template <class Body>
void for_each_piece(const FieldShape& shape, const Body& body) {
  constexpr std::int64_t kLength = cpu::PlaceRow<float>::kLength;
  parallel_for(shape.d * shape.h, kRowGrain, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t line = first; line < last; ++line) {
      for (std::int64_t x0 = 0; x0 < shape.w; x0 += kLength) {
        body(line / shape.h, line % shape.h, x0, std::min(kLength, shape.w - x0));
      }
    }
  });
}

/// Calls body(lane count as integral_constant, first channel, channels) for groups of up to 4 channels.
template <class Body>
void for_each_channel_group(std::int64_t channels, const Body& body) {
  for (std::int64_t first = 0; first < channels; first += 4) {
    const int count = static_cast<int>(std::min<std::int64_t>(4, channels - first));
    if (count == 1) {
      body(std::integral_constant<int, 1>{}, first, count);
    } else {
      body(std::integral_constant<int, 4>{}, first, count);
    }
  }
}

/// output = sample of `lattice` at x + u(x), plus `added` where it is not null.
template <Boundary kBoundary, class T, int kLanes>
void sample_field(const cpu::Lattice<T, kLanes>& lattice, const FieldShape& shape, const T* u, const T* added,
                  T* output, int channels) {
  using Voxel = typename cpu::Lattice<T, kLanes>::Voxel;
  const std::int64_t voxels = shape.voxels();
  const std::int64_t extent[3] = {shape.w, shape.h, shape.d};
  for_each_piece(shape, [&](std::int64_t z, std::int64_t y, std::int64_t x0, std::int64_t count) {
    cpu::PlaceRow<T> places;
    const std::int64_t start = (z * shape.h + y) * shape.w + x0;
    places.template locate<kBoundary>(u + start, voxels, extent, lattice.row(), lattice.plane(), {x0, y, z},
                                      count);
    T lanes[kLanes][cpu::PlaceRow<T>::kLength];
    for (std::int64_t i = 0; i < count; ++i) {
      Voxel value = Voxel{} + places.outside_value(i);
      if (places.inside[i]) lattice.sample(places[i], value);
      for (int c = 0; c < kLanes; ++c) lanes[c][i] = value[c];
    }
    for (int c = 0; c < channels; ++c) {
      T* target = output + c * voxels + start;
      const T* base = added == nullptr ? nullptr : added + c * voxels + start;
      for (std::int64_t i = 0; i < count; ++i)
        target[i] = base == nullptr ? lanes[c][i] : base[i] + lanes[c][i];
    }
  });
}

/// grad_u += (or =) sum over the group's channels of grad_output times the slope of the cell.
template <Boundary kBoundary, class T, int kLanes>
void sample_field_slopes(const cpu::Lattice<T, kLanes>& lattice, const FieldShape& shape,
                         const T* grad_output, const T* u, int channels, bool add, T* grad_u) {
  using Voxel = typename cpu::Lattice<T, kLanes>::Voxel;
  const std::int64_t voxels = shape.voxels();
  const std::int64_t extent[3] = {shape.w, shape.h, shape.d};
  for_each_piece(shape, [&](std::int64_t z, std::int64_t y, std::int64_t x0, std::int64_t count) {
    cpu::PlaceRow<T> places;
    const std::int64_t start = (z * shape.h + y) * shape.w + x0;
    places.template locate<kBoundary>(u + start, voxels, extent, lattice.row(), lattice.plane(), {x0, y, z},
                                      count);
    for (std::int64_t i = 0; i < count; ++i) {
      const T outside = places.outside_value(i);
      T slopes[3] = {outside, outside, outside};
      if (places.inside[i]) {
        Voxel value, along[3];
        lattice.sample_with_slopes(places[i], value, along[0], along[1], along[2]);
        for (int axis = 0; axis < 3; ++axis) {
          T sum = T(0);
          for (int c = 0; c < channels; ++c) sum += grad_output[c * voxels + start + i] * along[axis][c];
          slopes[axis] = sum * places.slope[axis][i];
        }
      }
      for (int axis = 0; axis < 3; ++axis) {
        T& target = grad_u[axis * voxels + start + i];
        target = add ? target + slopes[axis] : slopes[axis];
      }
    }
  });
}

/// Adds the channels of `values` to the lattice at x + u(x), slab by slab along z, or y for thin volumes.
template <Boundary kBoundary, class T, int kLanes>
void scatter_field(const FieldShape& shape, const T* values, const T* u, int channels,
                   cpu::Lattice<T, kLanes>& lattice) {
  using Voxel = typename cpu::Lattice<T, kLanes>::Voxel;
  const std::int64_t voxels = shape.voxels();
  const auto width = static_cast<std::uint32_t>(shape.w);
  const auto height = static_cast<std::uint32_t>(shape.h);
  const std::int32_t extent[3] = {static_cast<std::int32_t>(shape.w), static_cast<std::int32_t>(shape.h),
                                  static_cast<std::int32_t>(shape.d)};
  const int axis = shape.d >= shape.h || shape.d >= 16 ? 2 : 1;
  const auto cell_of = [&](std::uint32_t item, std::uint32_t x, std::uint32_t y, std::uint32_t z, int d) {
    const std::uint32_t voxel = d == 0 ? x : d == 1 ? y : z;
    return bounded_cell<kBoundary>(displaced_cell(static_cast<std::int32_t>(voxel), u[d * voxels + item]),
                                   extent[d]);
  };
  const auto find_slabs = [&](std::int64_t begin, std::int64_t end, std::int32_t* slab) {
    for (auto item = static_cast<std::uint32_t>(begin); item < static_cast<std::uint32_t>(end); ++slab) {
      const std::uint32_t line = item / width;
      const auto at = cell_of(item, 0, line % height, line / height, axis);
      *slab = at.inside ? at.cell + 1 : cpu::kNoSlab;
      ++item;
    }
  };
  const auto deposit = [&](std::span<const std::uint32_t> items) {
    for (const std::uint32_t item : items) {
      const std::uint32_t line = item / width;
      const std::uint32_t y = line % height;
      const std::uint32_t z = line / height;
      const std::uint32_t x = item - line * width;
      const auto at_x = cell_of(item, x, y, z, 0);
      const auto at_y = cell_of(item, x, y, z, 1);
      const auto at_z = cell_of(item, x, y, z, 2);
      if (!at_x.inside || !at_y.inside || !at_z.inside) continue;
      Voxel value{};
      for (int c = 0; c < channels; ++c) value[c] = values[c * voxels + item];
      lattice.scatter(
          {lattice.offset(at_z.cell, at_y.cell, at_x.cell), at_x.fraction, at_y.fraction, at_z.fraction},
          value);
    }
  };
  cpu::scatter_by_slab(voxels, extent[axis] + 1, find_slabs, deposit);
}

void forward(const Tensor& input, const Tensor& displacement, Boundary boundary, Tensor& output) {
  const FieldShape shape = warp_shape("warp", input, displacement);
  require_field_like("warp", "output", output, displacement, shape.c);
  const std::int64_t voxels = shape.voxels();
  dispatch_floating("warp", input.dtype(), [&]<class T>(T) {
    dispatch_boundary(boundary, [&](auto rule) {
      for_each_channel_group(shape.c, [&](auto lanes, std::int64_t first, int channels) {
        cpu::Lattice<T, lanes()> lattice(shape.d, shape.h, shape.w);
        for (std::int64_t n = 0; n < shape.n; ++n) {
          const std::int64_t source = input.shape(0) == 1 ? 0 : n;
          if (n == 0 || source != 0)
            lattice.pack(input.data<T>() + (source * shape.c + first) * voxels, channels);
          sample_field<rule()>(lattice, shape, displacement.data<T>() + n * 3 * voxels,
                               static_cast<const T*>(nullptr),
                               output.data<T>() + (n * shape.c + first) * voxels, channels);
        }
      });
    });
  });
}

void backward_input(const Tensor& grad_output, const Tensor& displacement, Boundary boundary,
                    Tensor& grad_input) {
  const FieldShape shape = warp_shape("warp_backward_input", grad_input, displacement);
  require_field_like("warp_backward_input", "grad_output", grad_output, displacement, shape.c);
  const std::int64_t voxels = shape.voxels();
  const bool shared_input = grad_input.shape(0) == 1;
  dispatch_floating("warp_backward_input", displacement.dtype(), [&]<class T>(T) {
    dispatch_boundary(boundary, [&](auto rule) {
      for_each_channel_group(shape.c, [&](auto lanes, std::int64_t first, int channels) {
        cpu::Lattice<T, lanes()> lattice(shape.d, shape.h, shape.w);
        for (std::int64_t n = 0; n < shape.n; ++n) {
          if (n == 0 || !shared_input) lattice.clear();
          scatter_field<rule()>(shape, grad_output.data<T>() + (n * shape.c + first) * voxels,
                                displacement.data<T>() + n * 3 * voxels, channels, lattice);
          if (!shared_input || n + 1 == shape.n) {
            const std::int64_t target = shared_input ? 0 : n;
            lattice.unpack(grad_input.data<T>() + (target * shape.c + first) * voxels, channels);
          }
        }
      });
    });
  });
}

void backward_displacement(const Tensor& grad_output, const Tensor& input, const Tensor& displacement,
                           Boundary boundary, Tensor& grad_displacement) {
  const FieldShape shape = warp_shape("warp_backward_displacement", input, displacement);
  require_field_like("warp_backward_displacement", "grad_output", grad_output, displacement, shape.c);
  require_field_like("warp_backward_displacement", "grad_displacement", grad_displacement, displacement, 3);
  const std::int64_t voxels = shape.voxels();
  dispatch_floating("warp_backward_displacement", input.dtype(), [&]<class T>(T) {
    dispatch_boundary(boundary, [&](auto rule) {
      for_each_channel_group(shape.c, [&](auto lanes, std::int64_t first, int channels) {
        cpu::Lattice<T, lanes()> lattice(shape.d, shape.h, shape.w);
        for (std::int64_t n = 0; n < shape.n; ++n) {
          const std::int64_t source = input.shape(0) == 1 ? 0 : n;
          if (n == 0 || source != 0)
            lattice.pack(input.data<T>() + (source * shape.c + first) * voxels, channels);
          sample_field_slopes<rule()>(lattice, shape, grad_output.data<T>() + (n * shape.c + first) * voxels,
                                      displacement.data<T>() + n * 3 * voxels, channels, first > 0,
                                      grad_displacement.data<T>() + n * 3 * voxels);
        }
      });
    });
  });
}

void compose(const Tensor& outer, const Tensor& inner, Tensor& composed) {
  const FieldShape shape = warp_shape("compose", outer, inner);
  CINNABAR_CHECK(shape.c == 3, "compose", "outer needs 3 channels, got ", outer);
  require_field_like("compose", "composed", composed, inner, 3);
  const std::int64_t field = 3 * shape.voxels();
  dispatch_floating("compose", outer.dtype(), [&]<class T>(T) {
    cpu::Lattice<T, 4> lattice(shape.d, shape.h, shape.w);
    for (std::int64_t n = 0; n < shape.n; ++n) {
      const std::int64_t source = outer.shape(0) == 1 ? 0 : n;
      if (n == 0 || source != 0) lattice.pack(outer.data<T>() + source * field, 3);
      const T* u = inner.data<T>() + n * field;
      sample_field<Boundary::zeros>(lattice, shape, u, u, composed.data<T>() + n * field, 3);
    }
  });
}

}  // namespace

namespace cpu {
const Warp warp{forward, backward_input, backward_displacement, compose};
}

}  // namespace cinnabar
