// Work split: cuFFT (vendor/fft.hpp) transforms 3 N components at once; between its two transforms one
// kernel,
//   one thread per frequency, multiplies the three components by the 3x3 symbol and the normalisation. The
//   symbol is computed from per-axis tables of cosines and sines, made in double by a kernel of one thread
//   per table entry. Padding and cropping are copies, left out where the field's own grid is transformed.
// Shared memory: none.
// Limiting resource: memory; the symbol kernel moves 24 bytes a voxel of the padded grid, the transforms
// about
//   144.

#include "kernels/green_operator.hpp"

#include "kernels/cuda/field_volume.cuh"
#include "kernels/cuda/vendor/fft.hpp"
#include "kernels/green_symbol.hpp"

namespace cinnabar::cuda {
namespace {

constexpr int kBlock = 256;

/// Extents of the transform and the tables c_x s_x c_y s_y c_z s_z, one behind the other.
struct Spectrum {
  int d, h, w;
  int half;                  ///< w / 2 + 1
  std::int64_t frequencies;  ///< of one component
  std::int64_t items;
  const float* tables;
};

// budget: <=32 registers, 0 B shared, 256 threads, occupancy >= 1.0
__global__ void __launch_bounds__(kBlock)
    green_tables_entry_kernel(int width, int height, int depth, float* tables) {
  const int i = static_cast<int>(thread_index());
  if (i >= width + height + depth) return;
  int extent = width;
  int k = i;
  float* c = tables;
  if (k >= extent) {
    k -= extent;
    c += 2 * extent;
    extent = height;
    if (k >= extent) {
      k -= extent;
      c += 2 * extent;
      extent = depth;
    }
  }
  constexpr double kTwoPi = 6.283185307179586476925;
  const double angle = kTwoPi * static_cast<double>(k) / static_cast<double>(extent);
  c[k] = static_cast<float>(2.0 * cos(angle) - 2.0);
  c[extent + k] = static_cast<float>(sin(angle));
}

/// Copies [rows of `components` volumes] from `source` extents into `target` extents, zero where there is no
/// source: padding when the target is larger, cropping when it is smaller.
struct Extents {
  int d, h, w;
};
// budget: <=32 registers, 0 B shared, 256 threads, occupancy >= 1.0
__global__ void __launch_bounds__(kBlock)
    resize_row_kernel(const float* source, Extents from, Extents to, std::int64_t rows, float* target) {
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const std::int64_t slice = row / to.h;
    const int y = static_cast<int>(row - slice * to.h);
    const std::int64_t component = slice / to.d;
    const int z = static_cast<int>(slice - component * to.d);
    const bool inside = y < from.h && z < from.d;
    const float* line = source + ((component * from.d + z) * from.h + y) * from.w;
    for (int x = static_cast<int>(threadIdx.x); x < to.w; x += kBlock) {
      target[row * to.w + x] = inside && x < from.w ? line[x] : 0.0f;
    }
  }
}

struct Fluid {
  float alpha, beta, gamma, normalisation;
  int power;
};

// budget: <=48 registers, 0 B shared, 256 threads, occupancy >= 1.0
template <bool kInvert>
__global__ void __launch_bounds__(kBlock)
    green_symbol_frequency_kernel(float2* values, Spectrum spectrum, Fluid fluid) {
  const std::int64_t i = thread_index();
  if (i >= spectrum.frequencies) return;
  const std::int64_t line = i / spectrum.half;
  const int x = static_cast<int>(i - line * spectrum.half);
  const int z = static_cast<int>(line / spectrum.h);
  const int y = static_cast<int>(line - static_cast<std::int64_t>(z) * spectrum.h);
  const float* of_x = spectrum.tables;
  const float* of_y = of_x + 2 * spectrum.w;
  const float* of_z = of_y + 2 * spectrum.h;
  const float c[3] = {of_x[x], of_y[y], of_z[z]};
  const float s[3] = {of_x[spectrum.w + x], of_y[spectrum.h + y], of_z[spectrum.d + z]};
  GreenSymbol<float> symbol = green_symbol(c, s, fluid.alpha, fluid.beta, fluid.gamma);
  if (kInvert) symbol = inverse_symbol(symbol);
  for (std::int64_t n = 0; n < spectrum.items; ++n) {
    float2* at = values + 3 * n * spectrum.frequencies + i;
    const auto scaled = [&](float2 value) {
      return make_float2(fluid.normalisation * value.x, fluid.normalisation * value.y);
    };
    float2 a = scaled(at[0]), b = scaled(at[spectrum.frequencies]), e = scaled(at[2 * spectrum.frequencies]);
    for (int p = 0; p < fluid.power; ++p) {
      const auto row = [&](float of_a, float of_b, float of_e) {
        return make_float2(of_a * a.x + of_b * b.x + of_e * e.x, of_a * a.y + of_b * b.y + of_e * e.y);
      };
      const float2 next_a = row(symbol.diagonal[0], symbol.mixed[0], symbol.mixed[1]);
      const float2 next_b = row(symbol.mixed[0], symbol.diagonal[1], symbol.mixed[2]);
      e = row(symbol.mixed[1], symbol.mixed[2], symbol.diagonal[2]);
      a = next_a;
      b = next_b;
    }
    at[0] = a;
    at[spectrum.frequencies] = b;
    at[2 * spectrum.frequencies] = e;
  }
}

void resize(const char* op, Device device, const float* source, const Extents& from, const Extents& to,
            std::int64_t components, float* target) {
  const std::int64_t rows = components * to.d * to.h;
  const LaunchShape shape{dim3(static_cast<unsigned>(rows < 1 << 20 ? rows : 1 << 20)), dim3(kBlock)};
  launch(op, resize_row_kernel, shape, device, source, from, to, rows, target);
}

bool is_aligned(const float* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % 8 == 0;
}

template <bool kInvert>
void filter(const char* op, const Tensor& input, const FluidOperator& fluid, FftPadding padding,
            Tensor& output) {
  const FieldShape shape = field_shape(op, "field", input, 3);
  require_field_like(op, "output", output, input, 3);
  const Device device = input.device();
  const Shape padded = green_operator_grid({shape.d, shape.h, shape.w}, fluid, padding);
  const Volume volume = volume_of(op, {shape.n, 3, padded[0], padded[1], padded[2]}, input.dtype());
  const Extents own{static_cast<int>(shape.d), static_cast<int>(shape.h), static_cast<int>(shape.w)};
  const Extents grid{volume.d, volume.h, volume.w};
  const std::int64_t components = 3 * shape.n;
  const bool direct = padded == Shape{shape.d, shape.h, shape.w};

  Tensor tables = Tensor::empty({2 * (volume.w + volume.h + volume.d)}, DType::f32, device);
  launch(op, green_tables_entry_kernel, cover(volume.w + volume.h + volume.d, kBlock), device, volume.w,
         volume.h, volume.d, tables.data<float>());

  Tensor real;  // the padded field; not needed where the field's own memory can be transformed
  const float* source = input.data<float>();
  float* target = output.data<float>();
  if (!direct || !is_aligned(source) || !is_aligned(target)) {
    real = Tensor::empty({components, volume.voxels}, DType::f32, device);
    resize(op, device, source, own, grid, components, real.data<float>());
    source = real.data<float>();
    target = real.data<float>();
  }
  const int half = volume.w / 2 + 1;
  const std::int64_t frequencies = static_cast<std::int64_t>(volume.d) * volume.h * half;
  Tensor spectrum = Tensor::empty({components, frequencies, 2}, DType::f32, device);
  const vendor::FftShape fft{components, volume.d, volume.h, volume.w};
  vendor::fft_forward(device, fft, source, spectrum.data<float>());
  const double gain = 1.0 / static_cast<double>(volume.voxels);
  launch(op, green_symbol_frequency_kernel<kInvert>, cover(frequencies, kBlock), device,
         reinterpret_cast<float2*>(spectrum.data<float>()),
         Spectrum{volume.d, volume.h, volume.w, half, frequencies, shape.n, tables.data<float>()},
         Fluid{static_cast<float>(fluid.alpha), static_cast<float>(fluid.beta),
               static_cast<float>(fluid.gamma), static_cast<float>(gain), fluid.power});
  vendor::fft_inverse(device, fft, spectrum.data<float>(), target);
  if (real.defined()) resize(op, device, target, grid, own, components, output.data<float>());
}

void smooth(const Tensor& momentum, const FluidOperator& fluid, FftPadding padding, Tensor& velocity) {
  filter<true>("smooth", momentum, fluid, padding, velocity);
}

void sharpen(const Tensor& velocity, const FluidOperator& fluid, FftPadding padding, Tensor& momentum) {
  filter<false>("sharpen", velocity, fluid, padding, momentum);
}

}  // namespace

extern const GreenOperator green_operator;
const GreenOperator green_operator{smooth, sharpen};

}  // namespace cinnabar::cuda
