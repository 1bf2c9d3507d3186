#include "kernels/patches.hpp"

#include <algorithm>
#include <vector>

#include "kernels/parallel.hpp"

namespace cinnabar::cpu {
namespace {

/// The part first <= i < last of a patch's axis that lies inside the volume.
struct Range {
  std::int64_t first, last;
};

Range inside(std::int64_t start, std::int64_t patch, std::int64_t volume) {
  const std::int64_t first = std::clamp<std::int64_t>(-start, 0, patch);
  return {first, std::clamp(volume - start, first, patch)};
}

PatchStart start_of(const Tensor& starts, std::int64_t n) {
  const std::int32_t* row = starts.data<std::int32_t>() + 4 * n;
  return {row[0], row[1], row[2], row[3]};
}

bool exists(const PatchStart& start, const FieldShape& volumes) {
  return start.volume >= 0 && start.volume < volumes.n;
}

/// Planes worth handing to a thread: some 10^4 voxels.
std::int64_t planes_of_task(const FieldShape& shape) {
  return 1 + 8192 / (shape.h * shape.w);
}

/// One plane of one channel of a patch; `volume` is that channel of its volume, or null.
template <class T>
void gather_plane(const T* volume, const PatchStart& start, std::int64_t z, const PatchGeometry& geometry,
                  T* plane) {
  const auto& [volumes, patches] = geometry;
  const std::int64_t area = patches.h * patches.w;
  if (volume == nullptr || z < 0 || z >= volumes.d) {
    std::fill(plane, plane + area, T(0));
    return;
  }
  const Range y = inside(start.y, patches.h, volumes.h);
  const Range x = inside(start.x, patches.w, volumes.w);
  std::fill(plane, plane + y.first * patches.w, T(0));
  for (std::int64_t j = y.first; j < y.last; ++j) {
    const T* source = volume + (z * volumes.h + start.y + j) * volumes.w + start.x;
    T* row = plane + j * patches.w;
    std::fill(row, row + x.first, T(0));
    std::copy(source + x.first, source + x.last, row + x.first);
    std::fill(row + x.last, row + patches.w, T(0));
  }
  std::fill(plane + y.last * patches.w, plane + area, T(0));
}

template <class T>
void run_gather(const Tensor& source, const Tensor& starts, const PatchGeometry& geometry, Tensor& target) {
  const auto& [volumes, patches] = geometry;
  const T* from = source.data<T>();
  T* to = target.data<T>();
  parallel_for(patches.n * patches.c * patches.d, planes_of_task(patches),
               [&](std::int64_t first, std::int64_t last) {
                 for (std::int64_t plane = first; plane < last; ++plane) {
                   const std::int64_t image = plane / patches.d;
                   const PatchStart start = start_of(starts, image / patches.c);
                   const std::int64_t channel = start.volume * volumes.c + image % patches.c;
                   gather_plane(exists(start, volumes) ? from + channel * volumes.voxels() : nullptr, start,
                                start.z + plane % patches.d, geometry, to + plane * patches.h * patches.w);
                 }
               });
}

void gather(const Tensor& volumes, const Tensor& starts, Tensor& patches) {
  const PatchGeometry geometry = patch_geometry(volumes, starts, patches);
  if (volumes.dtype() == DType::u8) return run_gather<std::uint8_t>(volumes, starts, geometry, patches);
  dispatch_floating("patches", volumes.dtype(),
                    [&](auto zero) { run_gather<decltype(zero)>(volumes, starts, geometry, patches); });
}

/// For every plane of every volume the patches that reach it, in the order of the list: those of plane p are
/// patch[begin[p]] .. patch[begin[p + 1] - 1].
struct PlaneLists {
  std::vector<std::size_t> begin;
  std::vector<std::int64_t> patch;
};

PlaneLists plane_lists(const Tensor& starts, const PatchGeometry& geometry) {
  const auto& [volumes, patches] = geometry;
  PlaneLists lists;
  lists.begin.assign(static_cast<std::size_t>(volumes.n * volumes.d) + 1, 0);
  const auto for_each_plane = [&](const auto& visit) {
    for (std::int64_t n = 0; n < patches.n; ++n) {
      const PatchStart start = start_of(starts, n);
      if (!exists(start, volumes)) continue;
      const Range z = inside(start.z, patches.d, volumes.d);
      for (std::int64_t k = z.first; k < z.last; ++k) {
        visit(n, static_cast<std::size_t>(start.volume * volumes.d + start.z + k));
      }
    }
  };
  for_each_plane([&](std::int64_t, std::size_t plane) { ++lists.begin[plane + 1]; });
  for (std::size_t plane = 1; plane < lists.begin.size(); ++plane)
    lists.begin[plane] += lists.begin[plane - 1];
  lists.patch.resize(lists.begin.back());
  std::vector<std::size_t> next = lists.begin;
  for_each_plane([&](std::int64_t n, std::size_t plane) { lists.patch[next[plane]++] = n; });
  return lists;
}

/// Adds to plane z of one channel what one patch has there; `patch` is that channel of it, null for all ones.
template <class T>
void add_plane(const T* patch, const PatchStart& start, std::int64_t z, const PatchGeometry& geometry,
               T* plane) {
  const auto& [volumes, patches] = geometry;
  const Range y = inside(start.y, patches.h, volumes.h);
  const Range x = inside(start.x, patches.w, volumes.w);
  for (std::int64_t j = y.first; j < y.last; ++j) {
    T* target = plane + (start.y + j) * volumes.w + start.x;
    if (patch == nullptr) {
      for (std::int64_t i = x.first; i < x.last; ++i) target[i] += T(1);
    } else {
      const T* row = patch + ((z - start.z) * patches.h + j) * patches.w;
      for (std::int64_t i = x.first; i < x.last; ++i) target[i] += row[i];
    }
  }
}

/// Adds the patches at `from`, or ones where it is null, to the volumes at `to`.
template <class T>
void run_scatter(const T* from, const Tensor& starts, const PatchGeometry& geometry, T* to) {
  const auto& [volumes, patches] = geometry;
  const PlaneLists lists = plane_lists(starts, geometry);
  const std::int64_t area = volumes.h * volumes.w;
  parallel_for(
      volumes.n * volumes.c * volumes.d, planes_of_task(volumes), [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t plane = first; plane < last; ++plane) {
          const std::int64_t z = plane % volumes.d;
          const std::int64_t channel = plane / volumes.d % volumes.c;
          const std::int64_t volume = plane / volumes.d / volumes.c;
          const auto list = static_cast<std::size_t>(volume * volumes.d + z);
          for (std::size_t k = lists.begin[list]; k < lists.begin[list + 1]; ++k) {
            const std::int64_t n = lists.patch[k];
            const T* patch = from == nullptr ? nullptr : from + (n * patches.c + channel) * patches.voxels();
            add_plane(patch, start_of(starts, n), z, geometry, to + plane * area);
          }
        }
      });
}

void scatter(const Tensor& patches, const Tensor& starts, Tensor& volumes) {
  const PatchGeometry geometry = patch_geometry(volumes, starts, patches);
  dispatch_floating("patches", volumes.dtype(), [&](auto zero) {
    using T = decltype(zero);
    run_scatter<T>(patches.data<T>(), starts, geometry, volumes.data<T>());
  });
}

void count(const Tensor& starts, const Shape& extents, Tensor& counts) {
  const PatchGeometry geometry = patch_count_geometry(starts, extents, counts);
  dispatch_floating("patches", counts.dtype(), [&](auto zero) {
    using T = decltype(zero);
    run_scatter<T>(nullptr, starts, geometry, counts.data<T>());
  });
}

void average(const Tensor& counts, Tensor& volumes) {
  const FieldShape shape = patch_average_shape(counts, volumes);
  dispatch_floating("patches", volumes.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const std::int64_t area = shape.h * shape.w;
    const T* count_at = counts.data<T>();
    T* value_at = volumes.data<T>();
    parallel_for(shape.n * shape.c * shape.d, planes_of_task(shape),
                 [&](std::int64_t first, std::int64_t last) {
                   for (std::int64_t plane = first; plane < last; ++plane) {
                     const std::int64_t volume = plane / shape.d / shape.c;
                     const T* covering = count_at + (volume * shape.d + plane % shape.d) * area;
                     T* values = value_at + plane * area;
                     for (std::int64_t i = 0; i < area; ++i) {
                       values[i] = covering[i] > T(0) ? values[i] / covering[i] : T(0);
                     }
                   }
                 });
  });
}

}  // namespace

extern const Patches patches;
const Patches patches{gather, scatter, count, average};

}  // namespace cinnabar::cpu
