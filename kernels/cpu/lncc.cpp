#include "kernels/lncc.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "kernels/parallel.hpp"

namespace cinnabar::cpu {
namespace {

constexpr std::int64_t kSlab = 32;  // planes of one task; each starts its running sums afresh

/// Adds up Count quantities over the window round every voxel of planes [first, last), in float64: running
/// sums along z for each column, then along y for each row, then along x. Every plane is entered once and
/// left once, so the cost per voxel does not depend on the radius.
///   add_row(z, y, sign, rows): adds sign times the quantities of row (z, y) to rows[q][x]
///   use_row(z, y, sums): takes the window sums of row (z, y)
template <std::size_t Count, class AddRow, class UseRow>
void window_sums(const LnccShape& shape, std::int64_t radius, std::int64_t first, std::int64_t last,
                 const AddRow& add_row, const UseRow& use_row) {
  using Rows = std::array<double*, Count>;
  const std::int64_t width = shape.width;
  const std::int64_t plane = shape.height * width;
  std::vector<double> columns(Count * static_cast<std::size_t>(plane), 0.0);
  std::vector<double> rows(Count * static_cast<std::size_t>(width));
  std::vector<double> windows(rows.size());
  const auto rows_at = [](std::vector<double>& values, std::int64_t stride, std::int64_t offset) {
    Rows result;
    for (std::size_t q = 0; q < Count; ++q) {
      result[q] = values.data() + static_cast<std::int64_t>(q) * stride + offset;
    }
    return result;
  };
  const auto add_plane = [&](std::int64_t z, double sign) {
    for (std::int64_t y = 0; y < shape.height; ++y) add_row(z, y, sign, rows_at(columns, plane, y * width));
  };
  const auto add_column_row = [&](std::int64_t y, double sign) {
    const Rows source = rows_at(columns, plane, y * width);
    const Rows target = rows_at(rows, width, 0);
    for (std::size_t q = 0; q < Count; ++q) {
      for (std::int64_t x = 0; x < width; ++x) target[q][x] += sign * source[q][x];
    }
  };
  for (std::int64_t z = std::max<std::int64_t>(first - radius, 0); z < std::min(first + radius, shape.depth);
       ++z) {
    add_plane(z, 1.0);
  }
  for (std::int64_t z = first; z < last; ++z) {
    if (z + radius < shape.depth) add_plane(z + radius, 1.0);
    if (z > first && z - radius - 1 >= 0) add_plane(z - radius - 1, -1.0);
    std::fill(rows.begin(), rows.end(), 0.0);
    for (std::int64_t y = 0; y < std::min(radius, shape.height); ++y) add_column_row(y, 1.0);
    for (std::int64_t y = 0; y < shape.height; ++y) {
      if (y + radius < shape.height) add_column_row(y + radius, 1.0);
      if (y - radius - 1 >= 0) add_column_row(y - radius - 1, -1.0);
      const Rows source = rows_at(rows, width, 0);
      const Rows target = rows_at(windows, width, 0);
      std::array<double, Count> sums{};
      for (std::int64_t x = 0; x < std::min(radius, width); ++x) {
        for (std::size_t q = 0; q < Count; ++q) sums[q] += source[q][x];
      }
      for (std::int64_t x = 0; x < width; ++x) {
        for (std::size_t q = 0; q < Count; ++q) {
          if (x + radius < width) sums[q] += source[q][x + radius];
          if (x - radius - 1 >= 0) sums[q] -= source[q][x - radius - 1];
          target[q][x] = sums[q];
        }
      }
      use_row(z, y, target);
    }
  }
}

template <class T>
struct Images {
  const T* a;
  const T* b;
  const T* mask;  // null: every voxel counts
};

template <class T>
Images<T> images_at(const Tensor& warped, const Tensor& fixed, const Tensor& mask, const LnccShape& shape,
                    std::int64_t image) {
  return {warped.data<T>() + image * shape.voxels(), fixed.data<T>() + image * shape.voxels(),
          mask.defined() ? mask.data<T>() + shape.mask_offset(image) : nullptr};
}

/// Calls use(index, count, local correlation, mean a, mean b) for every counting voxel of some planes.
template <class T, class Use>
void local_correlations(const Images<T>& images, const LnccShape& shape, const LnccOptions& options,
                        std::int64_t first, std::int64_t last, const Use& use) {
  const auto add_row = [&](std::int64_t z, std::int64_t y, double sign, const std::array<double*, 6>& rows) {
    const std::int64_t at = (z * shape.height + y) * shape.width;
    for (std::int64_t x = 0; x < shape.width; ++x) {
      const double counts = images.mask == nullptr || images.mask[at + x] > T(0) ? sign : 0.0;
      const double a = images.a[at + x];
      const double b = images.b[at + x];
      rows[0][x] += counts;
      rows[1][x] += counts * a;
      rows[2][x] += counts * b;
      rows[3][x] += counts * (a * a);
      rows[4][x] += counts * (b * b);
      rows[5][x] += counts * (a * b);
    }
  };
  const auto use_row = [&](std::int64_t z, std::int64_t y, const std::array<double*, 6>& sums) {
    const std::int64_t at = (z * shape.height + y) * shape.width;
    for (std::int64_t x = 0; x < shape.width; ++x) {
      if (images.mask != nullptr && !(images.mask[at + x] > T(0))) continue;
      const double count = sums[0][x];
      const double mean_a = sums[1][x] / count;
      const double mean_b = sums[2][x] / count;
      const auto local =
          local_correlation(count, sums[5][x] / count - mean_a * mean_b, sums[3][x] / count - mean_a * mean_a,
                            sums[4][x] / count - mean_b * mean_b, options.epsilon);
      use(at + x, local, mean_a, mean_b);
    }
  };
  window_sums<6>(shape, options.radius, first, last, add_row, use_row);
}

/// Calls body(task, image, first plane, last plane) for every slab of every image in parallel.
template <class Body>
void for_slabs(const LnccShape& shape, const Body& body) {
  const std::int64_t slabs = (shape.depth + kSlab - 1) / kSlab;
  parallel_for(shape.images * slabs, 1, [&](std::int64_t first_task, std::int64_t last_task) {
    for (std::int64_t task = first_task; task < last_task; ++task) {
      const std::int64_t first = task % slabs * kSlab;
      body(static_cast<std::size_t>(task), task / slabs, first, std::min(first + kSlab, shape.depth));
    }
  });
}

template <class T>
void run_forward(const Tensor& warped, const Tensor& fixed, const Tensor& mask, const LnccOptions& options,
                 const LnccShape& shape, Tensor& sums, Tensor& loss) {
  const std::int64_t slabs = (shape.depth + kSlab - 1) / kSlab;
  std::vector<std::array<double, 2>> partial(static_cast<std::size_t>(shape.images * slabs));
  for_slabs(shape, [&](std::size_t task, std::int64_t image, std::int64_t first, std::int64_t last) {
    const Images<T> images = images_at<T>(warped, fixed, mask, shape, image);
    double total = 0.0;
    double count = 0.0;
    local_correlations(images, shape, options, first, last,
                       [&](std::int64_t, const LocalCorrelation<double>& local, double, double) {
                         total += local.value;
                         count += 1.0;
                       });
    partial[task] = {total, count};
  });
  double* target = sums.data<double>();
  target[0] = target[1] = 0.0;
  for (const auto& [total, count] : partial) {
    target[0] += total;
    target[1] += count;
  }
  loss.fill(target[1] > 0.0 ? 1.0 - target[0] / target[1] : 1.0);
}

/// Per image the quantities whose window sums make the gradient: cross, then self and offset = cross
/// mean_other
/// + 2 self mean_own of each image. The factor 2 of `self` is already in it.
template <class T>
using Terms = std::array<std::vector<T>, 5>;

template <class T>
Terms<T> gradient_terms(const Images<T>& images, const LnccShape& shape, const LnccOptions& options) {
  Terms<T> terms;
  for (auto& values : terms) values.assign(static_cast<std::size_t>(shape.voxels()), T(0));
  LnccShape one = shape;
  one.images = 1;
  for_slabs(one, [&](std::size_t, std::int64_t, std::int64_t first, std::int64_t last) {
    local_correlations(
        images, shape, options, first, last,
        [&](std::int64_t index, const LocalCorrelation<double>& local, double mean_a, double mean_b) {
          const auto at = static_cast<std::size_t>(index);
          terms[0][at] = static_cast<T>(local.cross);
          terms[1][at] = static_cast<T>(local.self_a);
          terms[2][at] = static_cast<T>(local.cross * mean_b + local.self_a * mean_a);
          terms[3][at] = static_cast<T>(local.self_b);
          terms[4][at] = static_cast<T>(local.cross * mean_a + local.self_b * mean_b);
        });
  });
  return terms;
}

template <class T>
void run_backward(const Tensor& warped, const Tensor& fixed, const Tensor& mask, const LnccOptions& options,
                  const LnccShape& shape, double factor, Tensor& grad_warped, Tensor& grad_fixed) {
  LnccShape one = shape;
  one.images = 1;
  for (std::int64_t image = 0; image < shape.images; ++image) {
    const Images<T> images = images_at<T>(warped, fixed, mask, shape, image);
    const Terms<T> terms = gradient_terms(images, shape, options);
    T* grad_a = grad_warped.defined() ? grad_warped.data<T>() + image * shape.voxels() : nullptr;
    T* grad_b = grad_fixed.defined() ? grad_fixed.data<T>() + image * shape.voxels() : nullptr;
    const auto add_row = [&](std::int64_t z, std::int64_t y, double sign,
                             const std::array<double*, 5>& rows) {
      const std::int64_t at = (z * shape.height + y) * shape.width;
      for (std::size_t q = 0; q < 5; ++q) {
        const T* source = terms[q].data() + at;
        for (std::int64_t x = 0; x < shape.width; ++x) rows[q][x] += sign * source[x];
      }
    };
    const auto use_row = [&](std::int64_t z, std::int64_t y, const std::array<double*, 5>& sums) {
      const std::int64_t at = (z * shape.height + y) * shape.width;
      for (std::int64_t x = 0; x < shape.width; ++x) {
        const bool counts = images.mask == nullptr || images.mask[at + x] > T(0);
        const double scale = counts ? factor : 0.0;
        const double a = images.a[at + x];
        const double b = images.b[at + x];
        if (grad_a != nullptr) {
          grad_a[at + x] = static_cast<T>(scale * (b * sums[0][x] + a * sums[1][x] - sums[2][x]));
        }
        if (grad_b != nullptr) {
          grad_b[at + x] = static_cast<T>(scale * (a * sums[0][x] + b * sums[3][x] - sums[4][x]));
        }
      }
    };
    for_slabs(one, [&](std::size_t, std::int64_t, std::int64_t first, std::int64_t last) {
      window_sums<5>(shape, options.radius, first, last, add_row, use_row);
    });
  }
}

void forward(const Tensor& warped, const Tensor& fixed, const Tensor& mask, const LnccOptions& options,
             Tensor& sums, Tensor& loss) {
  const LnccShape shape = lncc_shape(warped, fixed, mask, options, sums, loss);
  dispatch_floating("lncc", warped.dtype(), [&](auto type) {
    run_forward<decltype(type)>(warped, fixed, mask, options, shape, sums, loss);
  });
}

void backward(const Tensor& grad_loss, const Tensor& warped, const Tensor& fixed, const Tensor& mask,
              const LnccOptions& options, const Tensor& sums, Tensor& grad_warped, Tensor& grad_fixed) {
  const LnccShape shape = lncc_shape(warped, fixed, mask, options, sums, grad_loss);
  check_lncc_gradients(warped, grad_warped, grad_fixed);
  const double count = sums.data<double>()[1];
  const double factor = count > 0.0 ? -grad_loss.item() / count : 0.0;
  dispatch_floating("lncc", warped.dtype(), [&](auto type) {
    run_backward<decltype(type)>(warped, fixed, mask, options, shape, factor, grad_warped, grad_fixed);
  });
}

}  // namespace

extern const Lncc lncc;
const Lncc lncc{forward, backward};

}  // namespace cinnabar::cpu
