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

/// Packs the channel groups of every batch item of `input`, one item after the other or the one that all
/// share, and calls body(lattice, batch item, first channel, channels).
template <class T, class Body>
void for_each_packed_group(const FieldShape& shape, const Tensor& input, const Body& body) {
  for_each_channel_group(shape.c, [&](auto lanes, std::int64_t first, int channels) {
    cpu::Lattice<T, lanes()> lattice(shape.d, shape.h, shape.w);
    for (std::int64_t n = 0; n < shape.n; ++n) {
      const std::int64_t source = input.shape(0) == 1 ? 0 : n;
      if (n == 0 || source != 0) {
        lattice.pack(input.data<T>() + (source * shape.c + first) * shape.voxels(), channels);
      }
      body(lattice, n, first, channels);
    }
  });
}

/// Finds the places of a piece of a row.
template <Boundary kBoundary, class T, int kLanes>
void locate_piece(const cpu::Lattice<T, kLanes>& lattice, const T* u, std::int64_t z, std::int64_t y,
                  std::int64_t x0, std::int64_t count, cpu::PlaceRow<T>& places) {
  const std::int64_t stride = lattice.depth() * lattice.height() * lattice.width();
  const T* first = u + (z * lattice.height() + y) * lattice.width() + x0;
  const auto x_of = [x0](std::int64_t i) { return static_cast<std::int32_t>(x0 + i); };
  places.template locate<kBoundary>(lattice, x_of, y, z, first, first + stride, first + 2 * stride, count);
}

/// output = sample of `lattice` at x + u(x), plus `added` where it is not null.
template <Boundary kBoundary, class T, int kLanes>
void sample_field(const cpu::Lattice<T, kLanes>& lattice, const FieldShape& shape, const T* u, const T* added,
                  T* output, int channels) {
  using Voxel = typename cpu::Lattice<T, kLanes>::Voxel;
  const std::int64_t voxels = shape.voxels();
  for_each_piece(shape, [&](std::int64_t z, std::int64_t y, std::int64_t x0, std::int64_t count) {
    cpu::PlaceRow<T> places;
    locate_piece<kBoundary>(lattice, u, z, y, x0, count, places);
    T lanes[kLanes][cpu::PlaceRow<T>::kLength];
    if (places.all_inside(count)) {
      for (std::int64_t i = 0; i < count; ++i) {
        Voxel value;
        lattice.sample(places[i], value);
        for (int c = 0; c < kLanes; ++c) lanes[c][i] = value[c];
      }
    } else {
      for (std::int64_t i = 0; i < count; ++i) {
        Voxel value = Voxel{} + places.outside_value(i);
        if (places.inside[i]) lattice.sample(places[i], value);
        for (int c = 0; c < kLanes; ++c) lanes[c][i] = value[c];
      }
    }
    const std::int64_t start = (z * shape.h + y) * shape.w + x0;
    for (int c = 0; c < channels; ++c) {
      T* target = output + c * voxels + start;
      if (added == nullptr) {
        for (std::int64_t i = 0; i < count; ++i) target[i] = lanes[c][i];
      } else {
        const T* base = added + c * voxels + start;
        for (std::int64_t i = 0; i < count; ++i) target[i] = base[i] + lanes[c][i];
      }
    }
  });
}

/// grad_u += (or =) sum over the group's channels of grad_output times the slope of the cell.
template <Boundary kBoundary, class T, int kLanes>
void sample_field_slopes(const cpu::Lattice<T, kLanes>& lattice, const FieldShape& shape,
                         const T* grad_output, const T* u, int channels, bool add, T* grad_u) {
  using Voxel = typename cpu::Lattice<T, kLanes>::Voxel;
  const std::int64_t voxels = shape.voxels();
  for_each_piece(shape, [&](std::int64_t z, std::int64_t y, std::int64_t x0, std::int64_t count) {
    constexpr std::int64_t kLength = cpu::PlaceRow<T>::kLength;
    cpu::PlaceRow<T> places;
    locate_piece<kBoundary>(lattice, u, z, y, x0, count, places);
    const std::int64_t start = (z * shape.h + y) * shape.w + x0;
    T along[3][kLanes][kLength];
    for (std::int64_t i = 0; i < count; ++i) {
      Voxel slopes[3];
      for (Voxel& slope : slopes) slope = Voxel{} + places.outside_value(i);
      if (places.inside[i]) lattice.slopes(places[i], slopes);
      for (int axis = 0; axis < 3; ++axis) {
        for (int c = 0; c < kLanes; ++c) along[axis][c][i] = slopes[axis][c];
      }
    }
    for (int axis = 0; axis < 3; ++axis) {
      T* target = grad_u + axis * voxels + start;
      T sum[kLength] = {};
      for (int c = 0; c < channels; ++c) {
        const T* grad = grad_output + c * voxels + start;
        for (std::int64_t i = 0; i < count; ++i) sum[i] += grad[i] * along[axis][c][i];
      }
      for (std::int64_t i = 0; i < count; ++i) {
        const T slope = sum[i] * places.slope[axis][i];
        target[i] = add ? target[i] + slope : slope;
      }
    }
  });
}

/// Adds the channels of `values` to the lattice at x + u(x), slab by slab along z, or y for thin volumes.
template <Boundary kBoundary, class T, int kLanes>
void scatter_field(const FieldShape& shape, const T* values, const T* u, int channels,
                   cpu::Lattice<T, kLanes>& lattice) {
  using Voxel = typename cpu::Lattice<T, kLanes>::Voxel;
  constexpr std::int64_t kLength = cpu::PlaceRow<T>::kLength;
  const std::int64_t voxels = shape.voxels();
  const bool along_z = shape.d >= shape.h || shape.d >= 16;
  const std::int64_t extent = along_z ? shape.d : shape.h;

  const auto find_slabs = [&](std::int64_t begin, std::int64_t end, std::int32_t* slab) {
    for (std::int64_t item = begin; item < end;) {
      const std::int64_t line = item / shape.w;
      const std::int64_t count = std::min({kLength, end - item, (line + 1) * shape.w - item});
      const auto voxel = static_cast<std::int32_t>(along_z ? line / shape.h : line % shape.h);
      T fraction[kLength], slope[kLength];
      std::int32_t inside[kLength];
      for (std::int64_t i = 0; i < count; ++i) inside[i] = 1;
      cpu::locate_axis<kBoundary>(
          u + (along_z ? 2 : 1) * voxels + item, count, extent, [voxel](std::int64_t) { return voxel; }, slab,
          fraction, slope, inside);
      for (std::int64_t i = 0; i < count; ++i) slab[i] = inside[i] ? slab[i] + 1 : cpu::kNoSlab;
      slab += count;
      item += count;
    }
  };
  // Items of a slab are mostly runs of neighbours along x, which are placed together.
  const auto deposit = [&](std::span<const std::uint32_t> items) {
    cpu::PlaceRow<T> places;
    for (std::size_t at = 0; at < items.size();) {
      const std::int64_t item = items[at];
      const std::int64_t line = item / shape.w;
      const std::int64_t longest = std::min<std::int64_t>(
          {kLength, (line + 1) * shape.w - item, static_cast<std::int64_t>(items.size() - at)});
      std::int64_t count = 1;
      while (count < longest && items[at + static_cast<std::size_t>(count)] == item + count) ++count;
      locate_piece<kBoundary>(lattice, u, line / shape.h, line % shape.h, item - line * shape.w, count,
                              places);
      for (std::int64_t i = 0; i < count; ++i) {
        if (!places.inside[i]) continue;
        Voxel value{};
        for (int c = 0; c < channels; ++c) value[c] = values[c * voxels + item + i];
        lattice.scatter(places[i], value);
      }
      at += static_cast<std::size_t>(count);
    }
  };
  cpu::scatter_by_slab(voxels, extent + 1, find_slabs, deposit);
}

void forward(const Tensor& input, const Tensor& displacement, Boundary boundary, Tensor& output) {
  const FieldShape shape = warp_shape("warp", input, displacement);
  require_field_like("warp", "output", output, displacement, shape.c);
  const std::int64_t voxels = shape.voxels();
  dispatch_floating("warp", input.dtype(), [&]<class T>(T) {
    dispatch_boundary(boundary, [&](auto rule) {
      for_each_packed_group<T>(
          shape, input, [&](const auto& lattice, std::int64_t n, std::int64_t first, int channels) {
            sample_field<rule()>(lattice, shape, displacement.data<T>() + n * 3 * voxels,
                                 static_cast<const T*>(nullptr),
                                 output.data<T>() + (n * shape.c + first) * voxels, channels);
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
      for_each_packed_group<T>(
          shape, input, [&](const auto& lattice, std::int64_t n, std::int64_t first, int channels) {
            sample_field_slopes<rule()>(lattice, shape,
                                        grad_output.data<T>() + (n * shape.c + first) * voxels,
                                        displacement.data<T>() + n * 3 * voxels, channels, first > 0,
                                        grad_displacement.data<T>() + n * 3 * voxels);
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
    for_each_packed_group<T>(
        shape, outer, [&](const auto& lattice, std::int64_t n, std::int64_t, int channels) {
          const T* u = inner.data<T>() + n * field;
          sample_field<Boundary::zeros>(lattice, shape, u, u, composed.data<T>() + n * field, channels);
        });
  });
}

}  // namespace

namespace cpu {
const Warp warp{forward, backward_input, backward_displacement, compose};
}

}  // namespace cinnabar
