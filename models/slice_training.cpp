#include "models/slice_training.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>

#include "autograd/losses.hpp"
#include "autograd/random.hpp"
#include "layers/cpab_warp.hpp"
#include "layers/matrix_warp.hpp"
#include "models/row_order.hpp"

namespace cinnabar {

namespace {

// Streams of random numbers under one seed.
constexpr std::uint64_t kWarpStream = 1'000, kOrderStream = 1'000'000, kTestStream = 2'000'000;
constexpr std::uint64_t kTestSeed = 20'180'622;
constexpr std::int64_t kChunk = 64;  ///< images scored at a time

/// Numbers for one image, uniform in [-1, 1].
constexpr std::int64_t kNumbers = 8;

/// [I + A | t] of the affine part: rotation, scale, aspect, shear and shift from numbers u in [-1, 1], all of
/// them times `strength`.
std::array<double, 6> affine_from(const double* u, double strength) {
  constexpr double kAngle = 60.0 * 3.14159265358979323846 / 180.0;
  const double angle = strength * kAngle * u[0], shear = strength * 0.15 * u[3];
  const double size = std::exp(strength * std::log(4.0 / 3.0) * u[1]);
  const double aspect = std::exp(strength * 0.5 * std::log(1.2) * u[2]);
  const double sx = size * aspect, sy = size / aspect;
  const double c = std::cos(angle), s = std::sin(angle);
  return {c * sx, c * shear * sx - s * sy, strength * 0.2 * u[4],
          s * sx, s * shear * sx + c * sy, strength * 0.2 * u[5]};
}

}  // namespace

const std::vector<std::string>& RandomWarp::names() {
  static const std::vector<std::string> names{"affine", "homography", "cpab", "none"};
  return names;
}

RandomWarp::RandomWarp(const std::string& name, const Shape& spatial) : name_(name) {
  if (name == "affine") {
    generator_ = std::make_unique<AffineWarp>(spatial);
  } else if (name == "homography") {
    generator_ = std::make_unique<HomographyWarp>(spatial);
  } else if (name == "cpab") {
    // Ten steps are precise enough for a warp that only has to be smooth, and three times as fast.
    generator_ = std::make_unique<CpabWarp>(spatial, std::vector<std::int32_t>{4, 4}, CpabConstraints{},
                                            CpabOptions{CpabIntegrator::steps, 10});
  } else if (name != "none") {
    fail_input("there is no random warp '", name, "': choose affine, homography, cpab or none");
  }
}

Tensor RandomWarp::parameters(std::int64_t count, std::uint64_t seed, std::uint64_t stream) const {
  if (name_ == "cpab") {
    const auto& space = dynamic_cast<const CpabWarp&>(*generator_).space();
    return space.sample_prior(count, 0.25, 0.3, {seed, stream, 0});
  }
  const std::vector<double> u =
      random_uniform({count, kNumbers}, -1.0, 1.0, seed, stream, Device::cpu(), DType::f64)
          .to_vector<double>();
  const bool perspective = name_ == "homography";
  std::vector<double> values;
  for (std::int64_t i = 0; i < count; ++i) {
    const double* numbers = u.data() + i * kNumbers;
    std::array<double, 6> matrix = affine_from(numbers, perspective ? 0.5 : 1.0);
    matrix[0] -= 1.0;
    matrix[4] -= 1.0;
    values.insert(values.end(), matrix.begin(), matrix.end());
    if (perspective) values.insert(values.end(), {0.35 * numbers[6], 0.35 * numbers[7]});
  }
  return Tensor::from(values, {count, generator_->parameter_count()}).to(DType::f32);
}

Tensor RandomWarp::operator()(const Tensor& images, std::uint64_t seed, std::uint64_t stream) const {
  if (generator_ == nullptr) return images;
  const NoGrad quiet;
  const Tensor p = parameters(images.shape(0), seed, stream);
  return transformed(Variable(images), *generator_, Variable(p)).value();
}

SliceTraining::SliceTraining(SliceClassifier& network, const LabelledImages& data, const RandomWarp& warp,
                             const SliceTrainingOptions& options)
    : network_(network),
      data_(data),
      warp_(warp),
      options_(options),
      adam_(network.named_parameters(), {.learning_rate = options.learning_rate}) {
  const std::int64_t count = data.images.shape(0);
  CINNABAR_CHECK(count >= 1 && data.labels.shape() == Shape{count} && options.batch_size >= 1,
                 "slice_training", "needs labels [N] for images [N, 1, H, W], got ", data.labels, " and ",
                 data.images);
  schedule_ = cosine_schedule(options.epochs * ((count + options.batch_size - 1) / options.batch_size));
}

double SliceTraining::epoch() {
  const auto turn = static_cast<std::uint64_t>(done_);
  const std::int64_t count = data_.images.shape(0);
  const Tensor images = warp_(data_.images, options_.seed, kWarpStream + turn);
  const std::vector<std::int64_t> order = shuffled_rows(count, options_.seed, kOrderStream + turn);
  double total = 0.0;
  network_.train();
  for (std::int64_t first = 0; first < count; first += options_.batch_size) {
    const std::int64_t here = std::min(options_.batch_size, count - first);
    const std::int64_t* rows = order.data() + first;
    const Variable warped(gather_rows(images, rows, here));
    const Variable loss =
        options_.task == SliceTask::align
            ? mse_loss(network_.aligned(warped), Variable(gather_rows(data_.images, rows, here)))
            : cross_entropy_loss(network_(warped), gather_rows(data_.labels, rows, here));
    adam_.set_rate_factor(schedule_(step_++));
    adam_.clear_gradients();
    loss.backward();
    adam_.step();
    total += loss.value().item() * static_cast<double>(here);
  }
  ++done_;
  return total / static_cast<double>(count);
}

namespace {

/// Sums over images that are scored.
struct Sums {
  std::int64_t right = 0, near = 0;
  std::vector<double> images;  ///< of each image as the classifier sees it, over rounds
  double squares = 0.0;
  double before = 0.0, after = 0.0;  ///< squared differences to the original images

  void add_classes(const Tensor& logits, const std::int64_t* labels) {
    const std::vector<double> values = logits.to_vector<double>();
    const std::int64_t classes = logits.shape(1);
    for (std::int64_t i = 0; i < logits.shape(0); ++i) {
      const auto row = values.begin() + i * classes;
      const std::int64_t found = std::max_element(row, row + classes) - row;
      const std::int64_t away = std::abs(found - labels[i]);
      right += away == 0 ? 1 : 0;
      near += away <= 1 ? 1 : 0;
    }
  }

  void add_images(const Tensor& seen, const Tensor& warped, const Tensor& original, std::int64_t first) {
    const float* s = seen.data<float>();
    const float* w = warped.data<float>();
    const float* o = original.data<float>();
    const auto square = [](float x) { return static_cast<double>(x) * static_cast<double>(x); };
    for (std::int64_t p = 0; p < seen.numel(); ++p) {
      images[static_cast<std::size_t>(first + p)] += s[p];
      squares += square(s[p]);
      before += square(w[p] - o[p]);
      after += square(s[p] - o[p]);
    }
  }

  /// Variance over rounds divided by the variance over rounds and images.
  double spread(std::int64_t count, int rounds) const {
    const std::size_t pixels = images.size() / static_cast<std::size_t>(count);
    std::vector<double> totals(pixels, 0.0);
    double of_images = 0.0, of_all = 0.0;  // squares of means over rounds, and over rounds and images
    for (std::size_t p = 0; p < images.size(); ++p) {
      of_images += images[p] * images[p] / rounds;
      totals[p % pixels] += images[p];
    }
    for (const double total : totals) of_all += total * total / (rounds * static_cast<double>(count));
    return squares > of_all ? (squares - of_images) / (squares - of_all) : 0.0;
  }
};

}  // namespace

SliceScore score_slices(SliceClassifier& network, const LabelledImages& data, const RandomWarp& warp,
                        int rounds) {
  const NoGrad quiet;
  network.eval();
  const std::int64_t count = data.images.shape(0), pixels = data.images.numel() / count;
  const std::vector<std::int64_t> labels = data.labels.to_vector<std::int64_t>();
  Sums sums;
  sums.images.resize(static_cast<std::size_t>(count * pixels), 0.0);
  for (int round = 0; round < rounds; ++round) {
    const Tensor warped = warp(data.images, kTestSeed, kTestStream + static_cast<std::uint64_t>(round));
    for (std::int64_t first = 0; first < count; first += kChunk) {
      const std::int64_t here = std::min(kChunk, count - first);
      const Tensor images = warped.rows(first, here);
      const Variable seen = network.aligned(Variable(images));
      sums.add_classes(network.classified(seen).value(), labels.data() + first);
      sums.add_images(seen.value(), images, data.images.rows(first, here), first * pixels);
    }
  }
  const double all = static_cast<double>(count) * rounds;
  return {static_cast<double>(sums.right) / all, static_cast<double>(sums.near) / all,
          sums.spread(count, rounds), sums.before > 0.0 ? std::sqrt(sums.after / sums.before) : 0.0};
}

}  // namespace cinnabar
