#include "registration/metrics.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>

#include "kernels/parallel.hpp"
#include "registration/sampling.hpp"
#include "registration/transform_chain.hpp"

namespace cinnabar::registration {

namespace {

constexpr std::int64_t kGrain = 1 << 16;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// The mask's values, or null for "everywhere". Throws unless the mask has as many voxels as what it masks.
class Mask {
 public:
  Mask(const LabelImage* mask, std::int64_t voxels) {
    if (mask == nullptr) return;
    labels_ = mask->labels.to(Device::cpu()).to(DType::i32);
    if (labels_.numel() != voxels) {
      fail_input("the mask '", mask->path, "' has ", labels_.numel(), " voxels where ", voxels,
                 " are needed; give a mask on the grid of the image or field");
    }
    values_ = labels_.data<std::int32_t>();
  }
  bool operator[](std::int64_t index) const { return values_ == nullptr || values_[index] != 0; }

 private:
  Tensor labels_;
  const std::int32_t* values_ = nullptr;
};

double ratio(std::int64_t numerator, std::int64_t denominator) {
  return denominator > 0 ? static_cast<double>(numerator) / static_cast<double>(denominator) : kNaN;
}

/// d u_component / d voxel axis at one voxel; `stride` is the step along the axis and `at` the position on
/// it.
double difference(const float* u, std::int64_t index, std::int64_t at, std::int64_t extent,
                  std::int64_t stride) {
  const std::int64_t below = at > 0 ? 1 : 0;
  const std::int64_t above = at + 1 < extent ? 1 : 0;
  if (below + above == 0) return 0.0;
  return (static_cast<double>(u[index + above * stride]) - static_cast<double>(u[index - below * stride])) /
         static_cast<double>(below + above);
}

}  // namespace

void require_same_grid(const Geometry& a, const std::string& a_path, const Geometry& b,
                       const std::string& b_path) {
  if (same_grid(a, b)) return;
  fail_input("'", a_path, "' (", describe(a), ") and '", b_path, "' (", describe(b),
             ") lie on different grids; resample one onto the other with cinnabar apply");
}

ImageSimilarity compare_images(const Image& a, const Image& b, const LabelImage* mask) {
  require_same_grid(a.geometry, a.path, b.geometry, b.path);
  const Tensor a_host = a.voxels.to(Device::cpu()), b_host = b.voxels.to(Device::cpu());
  const float* first = a_host.data<float>();
  const float* second = b_host.data<float>();
  const std::int64_t count = a.geometry.voxels();
  const Mask inside(mask, count);
  const auto sum = [&](const auto& term) {
    return parallel_sum(count, kGrain, [&](std::int64_t begin, std::int64_t end) {
      double partial = 0.0;
      for (std::int64_t i = begin; i < end; ++i) {
        if (inside[i]) partial += term(static_cast<double>(first[i]), static_cast<double>(second[i]));
      }
      return partial;
    });
  };
  ImageSimilarity result;
  result.voxels = static_cast<std::int64_t>(sum([](double, double) { return 1.0; }));
  const auto n = static_cast<double>(result.voxels);
  result.ssd = sum([](double x, double y) { return (x - y) * (x - y); });
  result.mse = result.voxels > 0 ? result.ssd / n : kNaN;
  const double x_mean = sum([](double x, double) { return x; }) / n;
  const double y_mean = sum([](double, double y) { return y; }) / n;
  const double xx = sum([&](double x, double) { return (x - x_mean) * (x - x_mean); });
  const double yy = sum([&](double, double y) { return (y - y_mean) * (y - y_mean); });
  const double xy = sum([&](double x, double y) { return (x - x_mean) * (y - y_mean); });
  result.ncc = xx > 0.0 && yy > 0.0 ? xy / std::sqrt(xx * yy) : kNaN;
  return result;
}

double LabelOverlap::dice() const {
  return ratio(2 * common_voxels, warped_voxels + reference_voxels);
}

double LabelOverlap::target_overlap() const {
  return ratio(common_voxels, reference_voxels);
}

LabelReport compare_labels(const LabelImage& warped, const LabelImage& reference,
                           const LabelSelection& selection) {
  require_same_grid(warped.geometry, warped.path, reference.geometry, reference.path);
  const Tensor a_host = warped.labels.to(Device::cpu()), b_host = reference.labels.to(Device::cpu());
  const std::int32_t* a = a_host.data<std::int32_t>();
  const std::int32_t* b = b_host.data<std::int32_t>();
  struct Entry {
    LabelOverlap overlap;
    bool selected = false;
  };
  std::unordered_map<std::int32_t, Entry> entries;
  const auto entry_of = [&](std::int32_t label) {
    const auto [at, added] = entries.try_emplace(label);
    if (added) at->second = {{label}, selection.contains(label)};
    return &at->second;
  };
  LabelOverlap all;
  Entry* of_a = entry_of(0);  // labels come in runs, so the last entries are kept
  Entry* of_b = of_a;
  for (std::int64_t i = 0; i < warped.geometry.voxels(); ++i) {
    if (a[i] != of_a->overlap.label) of_a = entry_of(a[i]);
    if (b[i] != of_b->overlap.label) of_b = entry_of(b[i]);
    ++of_a->overlap.warped_voxels;
    ++of_b->overlap.reference_voxels;
    if (of_a == of_b) ++of_a->overlap.common_voxels;
    all.warped_voxels += of_a->selected ? 1 : 0;
    all.reference_voxels += of_b->selected ? 1 : 0;
    all.common_voxels += of_a->selected && of_b->selected ? 1 : 0;
  }
  LabelReport report;
  for (const auto& [label, entry] : entries) {
    if (entry.selected) report.labels.push_back(entry.overlap);
  }
  std::sort(report.labels.begin(), report.labels.end(),
            [](const LabelOverlap& x, const LabelOverlap& y) { return x.label < y.label; });
  double dice = 0.0, target = 0.0;
  std::int64_t targets = 0;
  for (const LabelOverlap& one : report.labels) {
    dice += one.dice();
    if (one.reference_voxels == 0) continue;
    target += one.target_overlap();
    ++targets;
  }
  report.mean_dice = report.labels.empty() ? kNaN : dice / static_cast<double>(report.labels.size());
  report.mean_target_overlap = targets == 0 ? kNaN : target / static_cast<double>(targets);
  report.union_dice = all.dice();
  return report;
}

Tensor jacobian_determinant(const DisplacementField& field) {
  CINNABAR_CHECK(field.vectors.shape() == field.geometry.shape(3), "jacobian_determinant", field.vectors,
                 " on a grid of ", field.geometry.shape(3));
  const Tensor host = field.vectors.to(Device::cpu()).to(DType::f32);
  const float* u = host.data<float>();
  const std::array<std::int64_t, 3> extent = field.geometry.extent;
  const std::array<std::int64_t, 3> stride{1, extent[0], extent[0] * extent[1]};
  const std::int64_t count = field.geometry.voxels();
  const Matrix4 to_voxel = field.geometry.world_to_voxel();
  Tensor result = Tensor::empty(field.geometry.shape());
  float* target = result.data<float>();
  parallel_for(count, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::array<std::int64_t, 3> at{i % extent[0], i / stride[1] % extent[1], i / stride[2]};
      Matrix4 gradient = kIdentity4;
      for (std::size_t c = 0; c < 3; ++c) {
        const float* component = u + static_cast<std::int64_t>(c) * count;
        for (std::size_t axis = 0; axis < 3; ++axis) {
          const double slope = difference(component, i, at[axis], extent[axis], stride[axis]);
          for (std::size_t j = 0; j < 3; ++j) gradient[c * 4 + j] += slope * to_voxel[axis * 4 + j];
        }
      }
      target[i] = static_cast<float>(determinant(gradient));
    }
  });
  return result;
}

JacobianStatistics jacobian_statistics(const Tensor& determinant, const LabelImage* mask) {
  const Tensor host = determinant.to(Device::cpu()).to(DType::f32);
  const float* values = host.data<float>();
  const Mask inside(mask, host.numel());
  JacobianStatistics result;
  result.minimum = std::numeric_limits<double>::infinity();
  result.maximum = -result.minimum;
  double sum = 0.0, log_sum = 0.0, log_square = 0.0;
  for (std::int64_t i = 0; i < host.numel(); ++i) {
    if (!inside[i]) continue;
    const double value = values[i];
    ++result.voxels;
    sum += value;
    result.minimum = std::min(result.minimum, value);
    result.maximum = std::max(result.maximum, value);
    if (!(value > 0.0)) {
      ++result.non_positive;
      continue;
    }
    const double logarithm = std::log(value);
    log_sum += logarithm;
    log_square += logarithm * logarithm;
  }
  if (result.voxels == 0)
    fail_input("the mask leaves no voxel to measure the Jacobian on; give another mask");
  result.mean = sum / static_cast<double>(result.voxels);
  const auto positive = static_cast<double>(result.voxels - result.non_positive);
  const double log_mean = log_sum / positive;
  result.sd_log =
      positive > 0.0 ? std::sqrt(std::max(0.0, log_square / positive - log_mean * log_mean)) : kNaN;
  return result;
}

InverseConsistency inverse_consistency(const DisplacementField& forward, const DisplacementField& inverse,
                                       const LabelImage* mask) {
  const std::int64_t count = forward.geometry.voxels();
  const Mask inside(mask, count);
  TransformChain there, back;
  there.append(forward);
  back.append(inverse);
  const Matrix4 to_inverse = inverse.geometry.world_to_voxel();
  const std::array<std::int64_t, 3> extent = forward.geometry.extent;
  constexpr float kMasked = -1.0f, kLeftOut = -2.0f;
  std::vector<float> distance(static_cast<std::size_t>(count));
  parallel_for(count, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      float& target = distance[static_cast<std::size_t>(i)];
      target = kMasked;
      if (!inside[i]) continue;
      const Point start = transform_point(forward.geometry.voxel_to_world, voxel_position(extent, i));
      const Point moved = there.map(start);
      target = kLeftOut;
      if (!is_inside(inverse.geometry.extent, transform_point(to_inverse, moved))) continue;
      const Point end_point = back.map(moved);
      target = static_cast<float>(
          std::hypot(end_point[0] - start[0], end_point[1] - start[1], end_point[2] - start[2]));
    }
  });
  InverseConsistency result;
  result.left_out = std::count(distance.begin(), distance.end(), kLeftOut);
  std::erase_if(distance, [](float d) { return d < 0.0f; });
  result.voxels = static_cast<std::int64_t>(distance.size());
  if (distance.empty()) {
    fail_input("no voxel to measure inverse consistency on; check that both fields and the mask overlap");
  }
  for (const float d : distance) result.mean_mm += d;
  result.mean_mm /= static_cast<double>(distance.size());
  result.maximum_mm = *std::max_element(distance.begin(), distance.end());
  const auto rank = static_cast<std::ptrdiff_t>(0.95 * static_cast<double>(distance.size() - 1));
  std::nth_element(distance.begin(), distance.begin() + rank, distance.end());
  result.p95_mm = distance[static_cast<std::size_t>(rank)];
  return result;
}

}  // namespace cinnabar::registration
