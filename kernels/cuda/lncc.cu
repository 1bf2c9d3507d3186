// Exact window sums: both images are rounded to 24-bit integers of their largest magnitude, so products have
// 47
//   bits and sums over a window (at most 17^3 voxels) fit in 61: no rounding, no drift of running sums, and
//   variances by mean(aa) - mean(a)^2 without cancellation.
// Work split: a block of 32 x 8 threads owns 32 x 8 columns and marches through 32 planes. Entering and
// leaving
//   planes are staged with their halo, summed along x into shared memory, then along y into the six running
//   sums that every thread keeps in registers.
// Shared memory: 20, 28 or 44 KiB for radii up to 2, 4 and 8 (a template each). Launch: 256 threads.
// Gradient: the same march writes five coefficients per voxel, the tiled filter of axis_filter.cuh adds them
// over
//   windows (three passes, weights 1), a last kernel combines them with the images.
// Limiting resource: integer adds in the march, about 2 x 6 x (2 r + 1) x 3 of 64 bits per voxel; memory in
// the
//   passes over the coefficients.

#include "kernels/lncc.hpp"

#include "kernels/cuda/axis_filter.cuh"
#include "kernels/cuda/block_sum.cuh"
#include "kernels/cuda/fixed_point.cuh"
#include "kernels/cuda/launch.cuh"

namespace cinnabar::cuda {
namespace {

constexpr int kTileX = 32;
constexpr int kTileY = 8;
constexpr int kBlock = kTileX * kTileY;
constexpr int kPlanes = 32;  // marched through by one block
constexpr int kTerms = 5;    // cross, self_a, offset_a, self_b, offset_b
constexpr const char* kOp = "lncc";

struct Images {
  const float* a;
  const float* b;
  const float* mask;  // null: every voxel counts
  const unsigned* peak_a;
  const unsigned* peak_b;
  LnccShape shape;
  int radius;
  float epsilon;
};

/// 2^exponent is one unit of the 24-bit integers: 2^22 <= |largest| < 2^23 units.
__device__ __forceinline__ int unit_exponent(unsigned peak_bits) {
  return peak_exponent(peak_bits) - 23;
}

__device__ __forceinline__ bool counts(const float* mask, std::int64_t at) {
  return mask == nullptr || mask[at] > 0.0f;
}

/// Sums over a window of 1, a, b, aa, bb, ab in integer units.
struct WindowSums {
  int count;
  long long a, b, aa, bb, ab;
};

__device__ __forceinline__ void add(WindowSums& to, const WindowSums& term, int sign) {
  to.count += sign * term.count;
  to.a += sign * term.a;
  to.b += sign * term.b;
  to.aa += sign * term.aa;
  to.bb += sign * term.bb;
  to.ab += sign * term.ab;
}

struct WindowCorrelation {
  LocalCorrelation<float> local;
  float mean_a;
  float mean_b;
};

/// Moves the origin to the integer next to each mean, which is exact, before anything is rounded to float.
__device__ __forceinline__ WindowCorrelation correlate(const WindowSums& s, float unit_a, float unit_b,
                                                       float epsilon) {
  const float count = static_cast<float>(s.count);
  const long long mean_a = __float2int_rn(static_cast<float>(s.a) / count);
  const long long mean_b = __float2int_rn(static_cast<float>(s.b) / count);
  const long long rest_a = s.a - s.count * mean_a;
  const long long rest_b = s.b - s.count * mean_b;
  const long long aa = s.aa - mean_a * (s.a + rest_a);
  const long long bb = s.bb - mean_b * (s.b + rest_b);
  const long long ab = s.ab - mean_a * s.b - mean_b * rest_a;
  const float ra = static_cast<float>(rest_a) / count;
  const float rb = static_cast<float>(rest_b) / count;
  const float cov = (static_cast<float>(ab) / count - ra * rb) * unit_a * unit_b;
  const float var_a = (static_cast<float>(aa) / count - ra * ra) * unit_a * unit_a;
  const float var_b = (static_cast<float>(bb) / count - rb * rb) * unit_b * unit_b;
  return {local_correlation(count, cov, var_a, var_b, epsilon), (static_cast<float>(mean_a) + ra) * unit_a,
          (static_cast<float>(mean_b) + rb) * unit_b};
}

/// Shared memory of one block. Staged planes hold the tile and its halo, the row sums 32 columns of each row.
template <int kMaxRadius>
struct Stage {
  static constexpr int kWidth = kTileX + 2 * kMaxRadius;
  static constexpr int kHeight = kTileY + 2 * kMaxRadius;
  static constexpr int kVoxels = kWidth * kHeight;
  static constexpr int kRowSums = kTileX * kHeight;
  SharedPointer<int> a;
  SharedPointer<int> b;
  SharedPointer<signed char> counted;
  SharedPointer<int> row_count;
  SharedPointer<long long> row_sums;  // five blocks of kRowSums
};

/// Adds or subtracts what plane z contributes to the windows of this block's columns.
template <int kMaxRadius>
__device__ void add_plane(const Images& images, std::int64_t image, int z, int sign, float scale_a,
                          float scale_b, const Stage<kMaxRadius>& stage, WindowSums& sums) {
  using S = Stage<kMaxRadius>;
  const int thread = static_cast<int>(threadIdx.x);
  const int r = images.radius;
  const int x0 = static_cast<int>(blockIdx.x) * kTileX - r;
  const int y0 = static_cast<int>(blockIdx.y) * kTileY - r;
  const int width = static_cast<int>(images.shape.width);
  const int height = static_cast<int>(images.shape.height);
  const std::int64_t plane = static_cast<std::int64_t>(z) * height;
  const std::int64_t mask_offset = images.mask != nullptr ? images.shape.mask_offset(image) : 0;
  const int staged_width = kTileX + 2 * r;
  const int staged_height = kTileY + 2 * r;
  for (int k = thread; k < staged_width * staged_height; k += kBlock) {
    const int x = x0 + k % staged_width;
    const int y = y0 + k / staged_width;
    const int slot = k / staged_width * S::kWidth + k % staged_width;
    const bool inside = x >= 0 && x < width && y >= 0 && y < height;
    const std::int64_t at = inside ? (plane + y) * width + x : 0;
    const bool used = inside && (images.mask == nullptr || images.mask[mask_offset + at] > 0.0f);
    const std::int64_t origin = image * images.shape.voxels();
    stage.a[slot] = used ? __float2int_rn(images.a[origin + at] * scale_a) : 0;
    stage.b[slot] = used ? __float2int_rn(images.b[origin + at] * scale_b) : 0;
    stage.counted[slot] = used ? 1 : 0;
  }
  __syncthreads();
  for (int k = thread; k < kTileX * staged_height; k += kBlock) {
    const int first = k / kTileX * S::kWidth + k % kTileX;
    WindowSums row{};
    for (int j = first; j <= first + 2 * r; ++j) {
      const long long a = stage.a[j];
      const long long b = stage.b[j];
      row.count += stage.counted[j];
      row.a += a;
      row.b += b;
      row.aa += a * a;
      row.bb += b * b;
      row.ab += a * b;
    }
    stage.row_count[k] = row.count;
    stage.row_sums[k] = row.a;
    stage.row_sums[S::kRowSums + k] = row.b;
    stage.row_sums[2 * S::kRowSums + k] = row.aa;
    stage.row_sums[3 * S::kRowSums + k] = row.bb;
    stage.row_sums[4 * S::kRowSums + k] = row.ab;
  }
  __syncthreads();
  for (int j = 0; j <= 2 * r; ++j) {
    const int k = thread + j * kTileX;
    add(sums,
        {stage.row_count[k], stage.row_sums[k], stage.row_sums[S::kRowSums + k],
         stage.row_sums[2 * S::kRowSums + k], stage.row_sums[3 * S::kRowSums + k],
         stage.row_sums[4 * S::kRowSums + k]},
        sign);
  }
}

/// `partial` takes sum c and count of every block; or, where `terms` is not null, the coefficients of image
/// `only_image` are written there instead. blockIdx.z walks the slabs of the images.
// budget: <=128 registers, 44288 B shared, 256 threads, occupancy >= 0.25
template <int kMaxRadius>
__global__ void __launch_bounds__(kBlock, 1)
    lncc_march_column_kernel(Images images, std::int64_t only_image, float* terms, double* partial) {
  using S = Stage<kMaxRadius>;
  CINNABAR_SHARED(int, staged_a, S::kVoxels);
  CINNABAR_SHARED(int, staged_b, S::kVoxels);
  CINNABAR_SHARED(signed char, staged_counted, S::kVoxels);
  CINNABAR_SHARED(int, row_count, S::kRowSums);
  CINNABAR_SHARED(long long, row_sums, 5 * S::kRowSums);
  CINNABAR_SHARED(double, scratch, 2 * kBlock / 32);
  const Stage<kMaxRadius> stage{staged_a, staged_b, staged_counted, row_count, row_sums};
  const LnccShape& shape = images.shape;
  const int depth = static_cast<int>(shape.depth);
  const int slabs = (depth + kPlanes - 1) / kPlanes;
  const int unit_a = unit_exponent(*images.peak_a);
  const int unit_b = unit_exponent(*images.peak_b);
  const float scale_a = ldexpf(1.0f, -unit_a);
  const float scale_b = ldexpf(1.0f, -unit_b);
  const std::int64_t x = static_cast<std::int64_t>(blockIdx.x) * kTileX + threadIdx.x % kTileX;
  const std::int64_t y = static_cast<std::int64_t>(blockIdx.y) * kTileY + threadIdx.x / kTileX;
  const bool owns_column = x < shape.width && y < shape.height;
  const std::int64_t image = terms != nullptr ? only_image : static_cast<std::int64_t>(blockIdx.z) / slabs;
  const int first = static_cast<int>(blockIdx.z) % slabs * kPlanes;
  const int last = first + kPlanes < depth ? first + kPlanes : depth;
  WindowSums sums{};
  double totals[2] = {0.0, 0.0};
  for (int z = first > images.radius ? first - images.radius : 0; z < last + images.radius; ++z) {
    if (z < depth) add_plane(images, image, z, 1, scale_a, scale_b, stage, sums);
    const int centre = z - images.radius;
    if (centre < first) continue;
    if (centre > first && centre - images.radius - 1 >= 0) {
      add_plane(images, image, centre - images.radius - 1, -1, scale_a, scale_b, stage, sums);
    }
    if (!owns_column) continue;
    const std::int64_t at = (centre * shape.height + y) * shape.width + x;
    const float* mask = images.mask != nullptr ? images.mask + shape.mask_offset(image) : nullptr;
    const bool used = counts(mask, at);
    if (terms == nullptr && !used) continue;
    const WindowCorrelation window =
        used ? correlate(sums, ldexpf(1.0f, unit_a), ldexpf(1.0f, unit_b), images.epsilon)
             : WindowCorrelation{};
    if (terms == nullptr) {
      totals[0] += static_cast<double>(window.local.value);
      totals[1] += 1.0;
      continue;
    }
    const std::int64_t voxels = shape.voxels();
    const LocalCorrelation<float>& local = window.local;
    terms[at] = local.cross;
    terms[voxels + at] = local.self_a;
    terms[2 * voxels + at] = local.cross * window.mean_b + local.self_a * window.mean_a;
    terms[3 * voxels + at] = local.self_b;
    terms[4 * voxels + at] = local.cross * window.mean_a + local.self_b * window.mean_b;
  }
  if (terms != nullptr) return;
  block_sum<2, kBlock>(totals, scratch);
  if (threadIdx.x == 0) {
    const std::int64_t block =
        (static_cast<std::int64_t>(blockIdx.z) * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    partial[2 * block] = totals[0];
    partial[2 * block + 1] = totals[1];
  }
}

// budget: <=24 registers, 0 B shared, 1 threads, occupancy >= 0
__global__ void lncc_loss_kernel(const double* sums, const unsigned* peak_a, const unsigned* peak_b,
                                 float* loss) {
  const bool finite = peak_is_finite(*peak_a) && peak_is_finite(*peak_b);
  *loss = !finite ? nanf("") : sums[1] > 0.0 ? static_cast<float>(1.0 - sums[0] / sums[1]) : 1.0f;
}

/// Combines the window sums of the coefficients with the images. Either gradient may be null.
// budget: <=32 registers, 0 B shared, 256 threads, occupancy >= 1.0
__global__ void __launch_bounds__(kBlock)
    lncc_backward_voxel_kernel(Images images, std::int64_t image, const float* terms, const double* sums,
                               const float* grad_loss, float* grad_warped, float* grad_fixed) {
  const std::int64_t voxels = images.shape.voxels();
  const std::int64_t i = thread_index();
  if (i >= voxels) return;
  const float* mask = images.mask != nullptr ? images.mask + images.shape.mask_offset(image) : nullptr;
  const bool used = counts(mask, i) && sums[1] > 0.0;
  float factor = used ? static_cast<float>(-static_cast<double>(*grad_loss) / sums[1]) : 0.0f;
  if (!peak_is_finite(*images.peak_a) || !peak_is_finite(*images.peak_b)) factor = nanf("");
  const std::int64_t at = image * voxels + i;
  const float a = images.a[at];
  const float b = images.b[at];
  const float cross = terms[i];
  if (grad_warped != nullptr) {
    grad_warped[at] = factor * (b * cross + a * terms[voxels + i] - terms[2 * voxels + i]);
  }
  if (grad_fixed != nullptr) {
    grad_fixed[at] = factor * (a * cross + b * terms[3 * voxels + i] - terms[4 * voxels + i]);
  }
}

/// The images and the peaks that set their integer units.
struct Prepared {
  Tensor peak_a;
  Tensor peak_b;
  Images images;
};

Prepared prepare(const Tensor& warped, const Tensor& fixed, const Tensor& mask, const LnccOptions& options,
                 const LnccShape& shape) {
  require_dtype(kOp, warped, DType::f32);
  constexpr std::int64_t kLargest = std::numeric_limits<std::int32_t>::max() / 4;
  CINNABAR_CHECK(shape.depth <= kLargest && shape.height <= kLargest && shape.width <= kLargest, kOp,
                 "extents too large: ", warped);
  Prepared prepared{find_peak(kOp, warped), find_peak(kOp, fixed), {}};
  prepared.images = {warped.data<float>(),
                     fixed.data<float>(),
                     mask.defined() ? mask.data<float>() : nullptr,
                     reinterpret_cast<const unsigned*>(prepared.peak_a.data<std::int32_t>()),
                     reinterpret_cast<const unsigned*>(prepared.peak_b.data<std::int32_t>()),
                     shape,
                     options.radius,
                     static_cast<float>(options.epsilon)};
  return prepared;
}

dim3 march_grid(const LnccShape& shape, std::int64_t images) {
  const std::int64_t rows = (shape.height + kTileY - 1) / kTileY;
  const std::int64_t slabs = images * ((shape.depth + kPlanes - 1) / kPlanes);
  CINNABAR_CHECK(rows <= 65535 && slabs <= 65535, kOp, "too many rows or images");
  return dim3(static_cast<unsigned>((shape.width + kTileX - 1) / kTileX), static_cast<unsigned>(rows),
              static_cast<unsigned>(slabs));
}

void march(const Images& images, std::int64_t image_count, std::int64_t only_image, float* terms,
           double* partial, Device device) {
  const auto kernel = images.radius <= 2   ? lncc_march_column_kernel<2>
                      : images.radius <= 4 ? lncc_march_column_kernel<4>
                                           : lncc_march_column_kernel<8>;
  launch(kOp, kernel, {march_grid(images.shape, image_count), dim3(kBlock)}, device, images, only_image,
         terms, partial);
}

void forward(const Tensor& warped, const Tensor& fixed, const Tensor& mask, const LnccOptions& options,
             Tensor& sums, Tensor& loss) {
  const LnccShape shape = lncc_shape(warped, fixed, mask, options, sums, loss);
  const Prepared prepared = prepare(warped, fixed, mask, options, shape);
  const dim3 grid = march_grid(shape, shape.images);
  const std::int64_t blocks = std::int64_t{grid.x} * grid.y * grid.z;
  Tensor partial = Tensor::empty({blocks, 2}, DType::f64, warped.device());
  march(prepared.images, shape.images, 0, nullptr, partial.data<double>(), warped.device());
  sum_chunks<2>(kOp, partial, 1, blocks, sums.data<double>());
  launch(kOp, lncc_loss_kernel, {dim3(1), dim3(1)}, warped.device(), sums.data<double>(),
         prepared.images.peak_a, prepared.images.peak_b, loss.data<float>());
}

void backward(const Tensor& grad_loss, const Tensor& warped, const Tensor& fixed, const Tensor& mask,
              const LnccOptions& options, const Tensor& sums, Tensor& grad_warped, Tensor& grad_fixed) {
  const LnccShape shape = lncc_shape(warped, fixed, mask, options, sums, grad_loss);
  check_lncc_gradients(warped, grad_warped, grad_fixed);
  const Prepared prepared = prepare(warped, fixed, mask, options, shape);
  const Device device = warped.device();
  Tensor terms = Tensor::empty({kTerms, shape.depth, shape.height, shape.width}, DType::f32, device);
  Tensor other = Tensor::empty_like(terms);
  AxisTaps window{};
  window.radius = options.radius;
  for (int k = 0; k <= options.radius; ++k) window.weight[k] = window.face_weight[k] = 1.0f;
  for (std::int64_t image = 0; image < shape.images; ++image) {
    march(prepared.images, 1, image, terms.data<float>(), nullptr, device);
    const std::int64_t plane = shape.height * shape.width;
    filter_axis(kOp, terms.data<float>(), {kTerms * shape.depth * shape.height, shape.width, 1}, window,
                device, other.data<float>());
    filter_axis(kOp, other.data<float>(), {kTerms * shape.depth, shape.height, shape.width}, window, device,
                terms.data<float>());
    filter_axis(kOp, terms.data<float>(), {kTerms, shape.depth, plane}, window, device, other.data<float>());
    launch(kOp, lncc_backward_voxel_kernel, cover(shape.voxels(), kBlock), device, prepared.images, image,
           other.data<float>(), sums.data<double>(), grad_loss.data<float>(),
           grad_warped.defined() ? grad_warped.data<float>() : nullptr,
           grad_fixed.defined() ? grad_fixed.data<float>() : nullptr);
  }
}

}  // namespace

extern const Lncc lncc;
const Lncc lncc{forward, backward};

}  // namespace cinnabar::cuda
