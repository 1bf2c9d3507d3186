#include "kernels/green_operator.hpp"

#include <fftw3.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <mutex>
#include <numbers>
#include <tuple>
#include <vector>

#include "kernels/field_shape.hpp"
#include "kernels/green_symbol.hpp"
#include "kernels/parallel.hpp"
#include "kernels/smooth_number.hpp"

namespace cinnabar {

namespace {

/// FFTW's two precisions under one name.
template <class T>
struct Fftw;
template <>
struct Fftw<float> {
  using Complex = fftwf_complex;
  using Plan = fftwf_plan;
  static constexpr auto many_r2c = fftwf_plan_many_dft_r2c;
  static constexpr auto many_c2r = fftwf_plan_many_dft_c2r;
  static constexpr auto many = fftwf_plan_many_dft;
  static constexpr auto run_r2c = fftwf_execute_dft_r2c;
  static constexpr auto run_c2r = fftwf_execute_dft_c2r;
  static constexpr auto run = fftwf_execute_dft;
};
template <>
struct Fftw<double> {
  using Complex = fftw_complex;
  using Plan = fftw_plan;
  static constexpr auto many_r2c = fftw_plan_many_dft_r2c;
  static constexpr auto many_c2r = fftw_plan_many_dft_c2r;
  static constexpr auto many = fftw_plan_many_dft;
  static constexpr auto run_r2c = fftw_execute_dft_r2c;
  static constexpr auto run_c2r = fftw_execute_dft_c2r;
  static constexpr auto run = fftw_execute_dft;
};

/// Sizes of a transform of one padded component. Rows of the half spectrum are padded to whole cache lines,
/// which also keeps every row aligned as FFTW's SIMD code wants.
struct Grid {
  std::int64_t d, h, w;

  std::int64_t half() const { return w / 2 + 1; }
  std::int64_t spectrum_row() const { return (half() + 7) / 8 * 8; }
  std::int64_t spectrum_plane() const { return h * spectrum_row(); }
};

/// The transforms of one grid. Made once and kept for the process: FFTW's planner is not thread-safe and
/// costs more than a transform. FFTW_ESTIMATE, so that plans, and with them the bits, do not depend on
/// timings.
template <class T>
struct Plans {
  typename Fftw<T>::Plan plane_forward;   ///< one plane, in place, real rows of 2 * spectrum_row()
  typename Fftw<T>::Plan plane_backward;  ///< the same backwards
  typename Fftw<T>::Plan depth_forward;   ///< along z, in place, all columns of a [d, spectrum_row] slice
  typename Fftw<T>::Plan depth_backward;
};

template <class T>
const Plans<T>& plans_for(const Grid& grid) {
  using F = Fftw<T>;
  static std::mutex mutex;
  // Never destroyed, so that the plans stay reachable to the end.
  static auto& cache = *new std::map<std::tuple<std::int64_t, std::int64_t, std::int64_t>, Plans<T>>;
  const std::lock_guard lock(mutex);
  const auto key = std::make_tuple(grid.d, grid.h, grid.w);
  if (const auto found = cache.find(key); found != cache.end()) return found->second;

  const auto narrow = [](std::int64_t value) { return static_cast<int>(value); };
  const int extent[2] = {narrow(grid.h), narrow(grid.w)};
  const int real_box[2] = {narrow(grid.h), narrow(2 * grid.spectrum_row())};
  const int half_box[2] = {narrow(grid.h), narrow(grid.spectrum_row())};
  const int depth = narrow(grid.d);
  const int row = narrow(grid.spectrum_row());
  const std::int64_t largest = std::max(grid.h, grid.d) * grid.spectrum_row();
  Storage scratch(static_cast<std::size_t>(largest) * sizeof(typename F::Complex), Device::cpu());
  auto* complex = static_cast<typename F::Complex*>(scratch.data());
  auto* real = static_cast<T*>(scratch.data());
  Plans<T> plans;
  plans.plane_forward =
      F::many_r2c(2, extent, 1, real, real_box, 1, 0, complex, half_box, 1, 0, FFTW_ESTIMATE);
  plans.plane_backward =
      F::many_c2r(2, extent, 1, complex, half_box, 1, 0, real, real_box, 1, 0, FFTW_ESTIMATE);
  const int columns = narrow(grid.half());
  plans.depth_forward = F::many(1, &depth, columns, complex, nullptr, row, 1, complex, nullptr, row, 1,
                                FFTW_FORWARD, FFTW_ESTIMATE);
  plans.depth_backward = F::many(1, &depth, columns, complex, nullptr, row, 1, complex, nullptr, row, 1,
                                 FFTW_BACKWARD, FFTW_ESTIMATE);
  CINNABAR_CHECK(plans.plane_forward && plans.plane_backward && plans.depth_forward && plans.depth_backward,
                 "green_operator", "FFTW has no plan for ", grid.d, " x ", grid.h, " x ", grid.w);
  return cache.emplace(key, plans).first->second;
}

/// c_k = 2 cos(2 pi k / n) - 2 and s_k = sin(2 pi k / n). An axis of extent 1 has only frequency 0.
template <class T>
struct AxisTable {
  std::vector<T> c, s;

  explicit AxisTable(std::int64_t n) {
    for (std::int64_t k = 0; k < n; ++k) {
      const double angle = 2.0 * std::numbers::pi * static_cast<double>(k) / static_cast<double>(n);
      c.push_back(static_cast<T>(2.0 * std::cos(angle) - 2.0));
      s.push_back(static_cast<T>(std::sin(angle)));
    }
  }
};

/// Applies K or L to the spectra of the three components. Three passes over memory: planes forward; columns
/// along z forward, symbol, columns back, while a slice of all three components is in cache; planes back.
template <class T>
class SpectralFilter {
 public:
  SpectralFilter(const FieldShape& shape, const Grid& grid, const FluidOperator& fluid, bool invert)
      : shape_(shape),
        grid_(grid),
        plans_(plans_for<T>(grid)),
        x_(grid.w),
        y_(grid.h),
        z_(grid.d),
        alpha_(static_cast<T>(fluid.alpha)),
        beta_(static_cast<T>(fluid.beta)),
        gamma_(static_cast<T>(fluid.gamma)),
        normalisation_(static_cast<T>(1.0 / static_cast<double>(grid.d * grid.h * grid.w))),
        power_(fluid.power),
        invert_(invert),
        spectrum_(bytes_of(3 * shape.d * grid.spectrum_plane()), Device::cpu()) {}

  void run(const T* input, T* output) {
    transform_planes(input);
    filter_columns();
    transform_back(output);
  }

 private:
  using Complex = typename Fftw<T>::Complex;

  static std::size_t bytes_of(std::int64_t complex) {
    return static_cast<std::size_t>(complex) * sizeof(Complex);
  }
  Complex* spectrum(std::int64_t component, std::int64_t z) {
    return static_cast<Complex*>(spectrum_.data()) + (component * shape_.d + z) * grid_.spectrum_plane();
  }

  void transform_planes(const T* input) {
    parallel_for(3 * shape_.d, 1, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        T* plane = reinterpret_cast<T*>(spectrum(i / shape_.d, i % shape_.d));
        const std::int64_t row = 2 * grid_.spectrum_row();
        for (std::int64_t y = 0; y < grid_.h; ++y) {
          const T* source = input + (i * shape_.h + y) * shape_.w;
          const std::int64_t filled = y < shape_.h ? shape_.w : 0;
          std::copy(source, source + filled, plane + y * row);
          std::fill(plane + y * row + filled, plane + (y + 1) * row, T(0));
        }
        Fftw<T>::run_r2c(plans_.plane_forward, plane, reinterpret_cast<Complex*>(plane));
      }
    });
  }

  void filter_columns() {
    const std::int64_t row = grid_.spectrum_row();
    const std::int64_t slice = grid_.d * row;
    parallel_for(grid_.h, 1, [&](std::int64_t first, std::int64_t last) {
      Storage scratch(bytes_of(3 * slice), Device::cpu());
      auto* columns = static_cast<Complex*>(scratch.data());
      for (std::int64_t y = first; y < last; ++y) {
        for (int component = 0; component < 3; ++component) {
          Complex* mine = columns + component * slice;
          for (std::int64_t z = 0; z < shape_.d; ++z) {
            std::memcpy(mine + z * row, spectrum(component, z) + y * row, bytes_of(row));
          }
          std::memset(mine + shape_.d * row, 0, bytes_of((grid_.d - shape_.d) * row));
          Fftw<T>::run(plans_.depth_forward, mine, mine);
        }
        for (std::int64_t z = 0; z < grid_.d; ++z) {
          for (int i = 0; i < power_; ++i) {
            multiply_row(z, y, i == 0 ? normalisation_ : T(1), columns + z * row, columns + slice + z * row,
                         columns + 2 * slice + z * row);
          }
        }
        for (int component = 0; component < 3; ++component) {
          Complex* mine = columns + component * slice;
          Fftw<T>::run(plans_.depth_backward, mine, mine);
          for (std::int64_t z = 0; z < shape_.d; ++z) {
            std::memcpy(spectrum(component, z) + y * row, mine + z * row, bytes_of(row));
          }
        }
      }
    });
  }

  /// Multiplies the three components of the frequencies (z, y, all x) by the symbol and a factor.
  void multiply_row(std::int64_t z, std::int64_t y, T factor, Complex* vx, Complex* vy, Complex* vz) const {
    const T cy = y_.c[static_cast<std::size_t>(y)], sy = y_.s[static_cast<std::size_t>(y)];
    const T cz = z_.c[static_cast<std::size_t>(z)], sz = z_.s[static_cast<std::size_t>(z)];
    const T* cx = x_.c.data();
    const T* sx = x_.s.data();
    const std::int64_t half = grid_.half();
#pragma omp simd
    for (std::int64_t x = 0; x < half; ++x) {
      GreenSymbol<T> symbol = green_symbol<T>({cx[x], cy, cz}, {sx[x], sy, sz}, alpha_, beta_, gamma_);
      if (invert_) symbol = inverse_symbol(symbol);
      for (int part = 0; part < 2; ++part) {
        const T a = factor * vx[x][part], b = factor * vy[x][part], c = factor * vz[x][part];
        vx[x][part] = symbol.diagonal[0] * a + symbol.mixed[0] * b + symbol.mixed[1] * c;
        vy[x][part] = symbol.mixed[0] * a + symbol.diagonal[1] * b + symbol.mixed[2] * c;
        vz[x][part] = symbol.mixed[1] * a + symbol.mixed[2] * b + symbol.diagonal[2] * c;
      }
    }
  }

  void transform_back(T* output) {
    parallel_for(3 * shape_.d, 1, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        T* plane = reinterpret_cast<T*>(spectrum(i / shape_.d, i % shape_.d));
        Fftw<T>::run_c2r(plans_.plane_backward, reinterpret_cast<Complex*>(plane), plane);
        for (std::int64_t y = 0; y < shape_.h; ++y) {
          const T* source = plane + y * 2 * grid_.spectrum_row();
          std::copy(source, source + shape_.w, output + (i * shape_.h + y) * shape_.w);
        }
      }
    });
  }

  FieldShape shape_;
  Grid grid_;
  const Plans<T>& plans_;
  AxisTable<T> x_, y_, z_;
  T alpha_, beta_, gamma_, normalisation_;
  int power_;
  bool invert_;
  Storage spectrum_;
};

void filter(const char* op, const Tensor& input, const FluidOperator& fluid, FftPadding padding, bool invert,
            Tensor& output) {
  const FieldShape shape = field_shape(op, "field", input, 3);
  require_field_like(op, "output", output, input, 3);
  const Shape padded = green_operator_grid({shape.d, shape.h, shape.w}, fluid, padding);
  dispatch_floating(op, input.dtype(), [&]<class T>(T) {
    SpectralFilter<T> spectral(shape, {padded[0], padded[1], padded[2]}, fluid, invert);
    for (std::int64_t n = 0; n < shape.n; ++n) {
      const std::int64_t at = n * 3 * shape.voxels();
      spectral.run(input.data<T>() + at, output.data<T>() + at);
    }
  });
}

void smooth(const Tensor& momentum, const FluidOperator& fluid, FftPadding padding, Tensor& velocity) {
  filter("smooth", momentum, fluid, padding, true, velocity);
}

void sharpen(const Tensor& velocity, const FluidOperator& fluid, FftPadding padding, Tensor& momentum) {
  filter("sharpen", velocity, fluid, padding, false, momentum);
}

}  // namespace

Shape green_operator_grid(const Shape& spatial, const FluidOperator& fluid, FftPadding padding) {
  constexpr const char* kOp = "green_operator";
  CINNABAR_CHECK(spatial.rank() == 3 && spatial.numel() > 0, kOp, "needs extents D, H, W, got ", spatial);
  const bool positive =
      fluid.alpha >= 0 && fluid.beta >= 0 && fluid.gamma >= 0 && fluid.alpha + fluid.gamma > 0;
  CINNABAR_CHECK(positive && std::isfinite(fluid.alpha + fluid.beta + fluid.gamma), kOp,
                 "alpha, beta and gamma must be finite, not negative, alpha + gamma positive; got ",
                 fluid.alpha, ", ", fluid.beta, ", ", fluid.gamma);
  CINNABAR_CHECK(fluid.power >= 1 && fluid.power <= 4, kOp, "power must be 1 to 4, got ", fluid.power);
  if (padding == FftPadding::exact) return spatial;
  // K decays like exp(-r / l) / r with l = sqrt(alpha / gamma): at 2.5 l, or at 24 voxels, little is left,
  // and only momenta on opposite faces feel it, which registration keeps empty. Beyond its own extent an axis
  // needs no more.
  const double reach = std::min(std::ceil(2.5 * std::sqrt(fluid.alpha / fluid.gamma)), 24.0);
  Shape padded = spatial;
  for (int axis = 0; axis < 3; ++axis) {
    const std::int64_t n = spatial[axis];
    if (n == 1) continue;
    const auto rim = static_cast<std::int64_t>(std::min(reach, static_cast<double>(n)));
    padded = padded.with(axis, next_smooth_number(n + rim));
  }
  return padded;
}

namespace cpu {
const GreenOperator green_operator{smooth, sharpen};
}

}  // namespace cinnabar
