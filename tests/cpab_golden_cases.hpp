#pragma once

#include <Eigen/Dense>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <ostream>
#include <string>
#include <vector>

#include "engine/safetensors.hpp"
#include "kernels/cpab.hpp"
#include "kernels/cpab_basis.hpp"
#include "tests/devices.hpp"
#include "tests/golden_cases.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {

using Values = std::vector<double>;
constexpr double kSkip = std::numeric_limits<double>::quiet_NaN();

inline std::size_t at(std::int64_t index) {
  return static_cast<std::size_t>(index);
}

struct Target {
  Device device = Device::cpu();
  DType dtype = DType::f64;
};
inline const Target kPrecise{};

/// One golden file on one device and dtype. Flows run on float64 matrices turned into maps and then rounded.
struct CpabCase {
  std::filesystem::path path;
  Target target;

  bool f32() const { return target.dtype == DType::f32; }
};

inline void PrintTo(const CpabCase& golden, std::ostream* out) {
  *out << golden.path.string() << ' ' << golden.target.device << ' ' << golden.target.dtype;
}

/// Files whose metadata name a format of CPAB, and damaged ones that are named so.
inline bool is_cpab(const std::filesystem::path& path) {
  const auto metadata = golden_metadata(path);
  if (!metadata) return path.filename().string().starts_with("cpab_");
  const auto format = metadata->find("format");
  return format != metadata->end() && format->second.starts_with("cpab-golden-");
}

inline const std::vector<CpabCase>& cpab_golden_cases() {
  static const std::vector<CpabCase> all = [] {
    std::vector<CpabCase> found;
    for (const auto& path : golden_files("")) {
      if (!is_cpab(path)) continue;
      found.push_back({path, {Device::cpu(), DType::f64}});
      found.push_back({path, {Device::cpu(), DType::f32}});
      found.push_back({path, {Device::cuda(), DType::f32}});
    }
    return found;
  }();
  return all;
}

/// What the engine computes of a file, and how far that may lie from what the file says.
class CpabGolden : public ::testing::TestWithParam<CpabCase> {
 protected:
  void SetUp() override {
    skip_unless_available(target().device);
    if (IsSkipped()) return;
    file_ = load_safetensors(GetParam().path);
    ASSERT_EQ(file_.metadata.at("format"), "cpab-golden-1");
    std::vector<std::int32_t> boxes;
    for (const std::int64_t n : get("nc").to_vector<std::int64_t>())
      boxes.push_back(static_cast<std::int32_t>(n));
    tessellation_ = std::make_unique<CpabTessellation>(boxes);
    maps64_ = tessellation_->maps_from_matrices(get("A"));
  }

  const Tensor& get(const std::string& name) const { return file_.tensors.at(name); }
  bool flag(const char* name) const { return file_.metadata.at(name) == "1"; }
  std::int64_t dims() const { return tessellation_->dims(); }
  std::int64_t points() const { return get("points").shape(0); }
  const Target& target() const { return GetParam().target; }
  static Tensor on(const Target& where, const Tensor& x) { return x.to(where.dtype).to(where.device); }
  static Tensor back(const Tensor& x) { return x.to(Device::cpu()).to(DType::f64); }

  static Tensor negated(const Tensor& x) {
    Values values = x.to_vector<double>();
    for (double& value : values) value = -value;
    return Tensor::from(values, x.shape());
  }
  static CpabOptions scheme(int steps) { return {CpabIntegrator::steps, steps}; }

  /// The flow of `maps` at points [P, d] or [2, P, d].
  Tensor flow(const Tensor& maps, const Tensor& x, const CpabOptions& options) const {
    Tensor output = poisoned({maps.shape(0), points(), dims()}, target().dtype, target().device);
    cpab_on(target().device)
        .forward(on(target(), maps), on(target(), x), tessellation_->grid(), options, output);
    return back(output);
  }
  struct Gradients {
    Tensor maps, points;
  };
  Gradients gradients_on(const Target& where, const Tensor& maps, const Tensor& grad_output,
                         const CpabOptions& options, const Tensor& x) const {
    Tensor grad_maps = poisoned(maps.shape(), where.dtype, where.device);
    Tensor grad_points = poisoned(grad_output.shape(), where.dtype, where.device);
    cpab_on(where.device)
        .backward(on(where, grad_output), on(where, maps), on(where, x), tessellation_->grid(), options,
                  grad_maps, grad_points);
    return {back(grad_maps), back(grad_points)};
  }

  /// Inputs of the float64 engine that differ from the file's as those of float32 may: maps and points
  /// rounded, and points then moved by an ulp each way, but not across the faces of the domain.
  struct Inputs {
    Tensor maps, x;
  };
  std::vector<Inputs> nearby_inputs() const {
    std::vector<Inputs> inputs;
    for (const int step : {-1, 0, 1}) {
      Values x = get("points").to_vector<double>();
      for (double& value : x) {
        const bool inside = value >= 0.0 && value <= 1.0;
        const auto rounded = static_cast<float>(value);
        value = step == 0 ? rounded : std::nextafter(rounded, static_cast<float>(step) * 1e9F);
        if (inside) value = std::clamp(value, 0.0, 1.0);
      }
      inputs.push_back({maps64_.to(DType::f32).to(DType::f64), Tensor::from(x, get("points").shape())});
    }
    return inputs;
  }
  /// How far `result` of nearby inputs, all in float64, lies from that of the file's: for each of the 2 P
  /// points the largest of its entries. Nothing for float64 cases, which have no use for it.
  template <class Result>
  Values sensitivity(const Result& result) const {
    if (!GetParam().f32()) return {};
    const Values base = result(Inputs{maps64_, get("points")}).template to_vector<double>();
    Values largest(at(2 * points()), 0.0);
    for (const Inputs& inputs : nearby_inputs()) {
      const Values moved = result(inputs).template to_vector<double>();
      const std::size_t per_point = base.size() / largest.size();
      for (std::size_t i = 0; i < base.size(); ++i) {
        double& bound = largest[i / per_point];
        bound = std::max(bound, std::abs(moved[i] - base[i]));
      }
    }
    return largest;
  }

  /// `tolerance` bounds |actual - expected| in every entry of a point (by batch entry and number),
  /// relative to what `keep` returns; NaN leaves a point out.
  template <class Keep>
  void expect_points(const char* name, const Tensor& actual, const Tensor& expected, double tolerance,
                     const Keep& keep) const {
    ASSERT_EQ(actual.shape(), expected.shape()) << name;
    const Values a = actual.to_vector<double>();
    const Values e = expected.to_vector<double>();
    const std::int64_t per_point = expected.numel() / (2 * points());
    double worst = 0.0;
    std::int64_t where = -1, kept = 0;
    double difference2 = 0.0, reference2 = 0.0;
    for (std::int64_t i = 0; i < 2 * points(); ++i) {
      const double scale = keep(i / points(), i % points());
      if (std::isnan(scale)) continue;
      ++kept;
      for (std::int64_t k = i * per_point; k < (i + 1) * per_point; ++k) {
        const double error = std::abs(a[at(k)] - e[at(k)]) / scale;
        if (!std::isnan(worst) && !(error <= worst)) {  // a NaN stays
          worst = error;
          where = i;
        }
        difference2 += (a[at(k)] - e[at(k)]) * (a[at(k)] - e[at(k)]);
        reference2 += e[at(k)] * e[at(k)];
      }
    }
    EXPECT_LE(worst, tolerance) << name << " at batch entry " << where / points() << ", point "
                                << where % points();
    if (std::getenv("CINNABAR_GOLDEN_REPORT") != nullptr) {
      std::printf("%-28s worst %.2e norm %.2e over %ld points\n", name, worst,
                  std::sqrt(difference2 / std::max(reference2, 1e-300)), static_cast<long>(kept));
    }
  }

  /// Compares gradients of the maps, turned into those of the matrices and of the nodes; relative to the
  /// largest entry. `matrices` may be undefined.
  void expect_cells(const char* name, const Tensor& grad_maps, const Tensor& matrices, const Tensor& nodes,
                    double tolerance) const {
    const Tensor grad_matrices = tessellation_->maps_from_matrices_backward(grad_maps);
    const Tensor grad_nodes = tessellation_->matrices_from_nodes_backward(grad_matrices);
    for (std::int64_t b = 0; b < 2; ++b) {
      if (matrices.defined()) {
        EXPECT_LE(relative_error(grad_matrices.rows(b, 1), matrices.rows(b, 1)), tolerance)
            << name << ' ' << b;
      }
      EXPECT_LE(relative_error(grad_nodes.rows(b, 1), nodes.rows(b, 1)), tolerance)
          << name << " of nodes " << b;
    }
  }

  /// A cell counts as left a little beyond its face; at a grazing angle that is a little late, which moves
  /// the derivative by that delay times the difference of the maps.
  double gradient_tolerance() const { return GetParam().f32() ? 1e-4 : 1e-9; }
  /// In float32 derivatives of ill-conditioned flows may err by ten times what rounding of the inputs does to
  /// them: the scale at which that is the tolerance.
  std::function<double(std::int64_t, std::int64_t)> valid_scale(const Values& moved) const {
    return [this, moved](std::int64_t b, std::int64_t p) {
      if (!is_valid(b, p)) return kSkip;
      const double stretch = stretch_at(get("jac_x"), b, p);
      if (!GetParam().f32()) return stretch;
      return std::max(stretch, 10 * moved[at(b * points() + p)] / gradient_tolerance());
    };
  }
  bool is_valid(std::int64_t b, std::int64_t p) const {
    return get("jac_valid").data<std::int64_t>()[b * points() + p] != 0;
  }
  /// Scale 1 where no rounding can change the cells that the stepping scheme visits; elsewhere no comparison.
  std::function<double(std::int64_t, std::int64_t)> settled(int steps) const {
    return [this, steps](std::int64_t b, std::int64_t p) {
      const double gap = get("disc_gap_N" + std::to_string(steps)).data<double>()[b * points() + p];
      return gap >= (GetParam().f32() ? 1e-5 : 1e-12) ? 1.0 + stretch_at(get("jac_x"), b, p) : kSkip;
    };
  }
  /// How much a flow enlarges rounding at a point: 1 + the sum of |entries| of a Jacobian.
  double stretch_at(const Tensor& jacobians, std::int64_t b, std::int64_t p) const {
    const std::int64_t entries = dims() * dims();
    double sum = 1.0;
    for (std::int64_t k = 0; k < entries; ++k) {
      sum += std::abs(jacobians.data<double>()[(b * points() + p) * entries + k]);
    }
    return sum;
  }
  std::function<double(std::int64_t, std::int64_t)> stretch_of(const Tensor& jacobians) const {
    return [this, jacobians](std::int64_t b, std::int64_t p) { return stretch_at(jacobians, b, p); };
  }
  /// [2, P, d, d]: one backward pass for each row.
  Tensor jacobian(const Tensor& maps, const Tensor& x, const CpabOptions& options) const {
    return jacobian_on(target(), maps, x, options);
  }
  Tensor jacobian_on(const Target& where, const Tensor& maps, const Tensor& x,
                     const CpabOptions& options) const {
    const std::int64_t d = dims();
    Tensor result = Tensor::empty({2, points(), d, d}, DType::f64);
    for (std::int64_t row = 0; row < d; ++row) {
      Tensor seed = Tensor::zeros({2, points(), d}, DType::f64);
      for (std::int64_t i = 0; i < 2 * points(); ++i) seed.data<double>()[i * d + row] = 1.0;
      const Tensor grad = gradients_on(where, maps, seed, options, x).points;
      for (std::int64_t i = 0; i < grad.numel(); ++i) {
        result.data<double>()[(i / d * d + row) * d + i % d] = grad.data<double>()[i];
      }
    }
    return result;
  }
  /// 1 / the smallest singular value of a point's Jacobian: how much the way back enlarges what rounding did
  /// on the way there.
  double inverse_stretch_at(std::int64_t b, std::int64_t p) const {
    const auto d = static_cast<Eigen::Index>(dims());
    const Eigen::Map<const Eigen::MatrixXd> entries(
        get("jac_x").data<double>() + (b * points() + p) * dims() * dims(), d, d);
    return 1.0 / entries.jacobiSvd().singularValues()[d - 1];
  }
  /// loss_w for both batch entries.
  Tensor seeds() const {
    Values values = get("loss_w").to_vector<double>();
    const Values once = values;
    values.insert(values.end(), once.begin(), once.end());
    return Tensor::from(values, {2, points(), dims()});
  }
  /// [K, P, d]: derivatives of every coordinate of every point along the file's directions.
  Tensor slopes_along(std::int64_t b, const CpabOptions& options) const {
    const std::int64_t d = dims(), batch = points() * d, entries = maps64_.numel() / 2;
    const Tensor directions = tessellation_->maps_from_matrices(get("dA"));
    Tensor maps = Tensor::empty({batch, tessellation_->cells(), d, d + 1}, DType::f64);
    Tensor x = Tensor::empty({batch, 1, d}, DType::f64);
    Tensor seed = Tensor::zeros({batch, 1, d}, DType::f64);
    for (std::int64_t i = 0; i < batch; ++i) {
      std::copy_n(maps64_.data<double>() + b * entries, entries, maps.data<double>() + i * entries);
      std::copy_n(get("points").data<double>() + i / d * d, d, x.data<double>() + i * d);
      seed.data<double>()[i * d + i % d] = 1.0;
    }
    const Tensor grad = gradients_on(target(), maps, seed, options, x).maps;
    Tensor slopes = Tensor::zeros({directions.shape(0), points(), d}, DType::f64);
    for (std::int64_t i = 0; i < slopes.numel(); ++i) {
      const double* direction = directions.data<double>() + i / batch * entries;
      slopes.data<double>()[i] =
          std::inner_product(direction, direction + entries, grad.data<double>() + i % batch * entries, 0.0);
    }
    return slopes;
  }

  SafeTensors file_;
  std::unique_ptr<CpabTessellation> tessellation_;
  Tensor maps64_;
};

}  // namespace cinnabar::testing
