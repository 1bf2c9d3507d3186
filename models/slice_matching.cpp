#include "models/slice_matching.hpp"

#include <algorithm>
#include <cmath>

#include "autograd/elementwise.hpp"
#include "autograd/layout.hpp"
#include "autograd/matmul.hpp"
#include "autograd/random.hpp"
#include "autograd/reduce.hpp"
#include "models/network_description.hpp"

namespace cinnabar {

namespace {

constexpr const char* kOp = "slice_matching";
constexpr const char* kMetadataKey = "slice_matcher";
constexpr std::int64_t kLargestNumber = 1 << 16;  ///< beyond it a number of a file is damaged
constexpr std::uint64_t kPairStream = 1'000, kWarpStream = 1'000'000, kTestStream = 2'000'000;
constexpr std::uint64_t kTestSeed = 20'060'617;
constexpr double kFirstScale = 10.0;  ///< of a mean cosine
constexpr std::int64_t kNumbers = 3;  ///< random ones for a pair
constexpr std::int64_t kRows = 8;     ///< slices matched at a time

SiameseOptions siamese_options(const SliceMatcherOptions& options) {
  return {
      .in = 1, .channels = options.channels, .embedding = options.embedding, .axes = 2, .seed = options.seed};
}

/// Where slice i of `from` slices lies among `to` others.
double same_height(std::int64_t i, std::int64_t from, std::int64_t to) {
  return static_cast<double>(i) * static_cast<double>(to - 1) / static_cast<double>(from - 1);
}

/// The mean of those values that have weight 1, others having 0.
Variable mean_of(const Variable& values, const Variable& weights) {
  return sum(weights * values) / std::max(1.0, sum(weights).value().item());
}

nlohmann::json to_json(const SliceMatcherOptions& options) {
  return {{"loss", matching_loss_names()[static_cast<std::size_t>(options.loss)]},
          {"channels", options.channels},
          {"embedding", options.embedding},
          {"radius", options.radius}};
}

SliceMatcherOptions options_from(const nlohmann::json& object) {
  SliceMatcherOptions options;
  const auto& names = matching_loss_names();
  const auto loss = std::find(names.begin(), names.end(), object.at("loss").get<std::string>());
  options.channels = object.at("channels").get<std::vector<std::int64_t>>();
  options.embedding = object.at("embedding").get<std::int64_t>();
  options.radius = object.at("radius").get<std::int64_t>();
  std::vector<std::int64_t> numbers = options.channels;
  numbers.insert(numbers.end(), {options.embedding, options.radius + 1});
  const bool sane = std::all_of(numbers.begin(), numbers.end(),
                                [](std::int64_t n) { return n >= 1 && n <= kLargestNumber; });
  if (loss == names.end() || options.channels.empty() || !sane) {
    fail_input("its description is damaged; train the network again");
  }
  options.loss = static_cast<MatchingLoss>(loss - names.begin());
  return options;
}

}  // namespace

const std::vector<std::string>& matching_loss_names() {
  static const std::vector<std::string> names{"contrastive", "correlation"};
  return names;
}

SliceMatcher::SliceMatcher(const SliceMatcherOptions& options)
    : options_(options), siamese_(siamese_options(options)) {
  add_child("siamese", siamese_);
  if (options.loss != MatchingLoss::correlation) return;
  Generator weights(options.seed, 1);
  scale_ = std::make_unique<Linear>(1, 1, weights);
  scale_->weight.set_value(Tensor::full({1, 1}, kFirstScale));
  scale_->bias.set_value(Tensor::full({1}, -0.5 * kFirstScale));
  add_child("scale", *scale_);
}

Variable SliceMatcher::compared(const Variable& a, const Variable& b) {
  const std::int64_t rows = a.shape()[0], columns = b.shape()[0];
  // Both in one pass.
  const Variable both = unsqueeze(concat({a, b}, 0), 2);
  const bool contrastive = options_.loss == MatchingLoss::contrastive;
  const Variable seen = contrastive ? siamese_.embedded(both) : siamese_.features(both);
  const Variable first = unsqueeze(slice(seen, 0, 0, rows), 1);
  const Variable second = unsqueeze(slice(seen, 0, rows, rows + columns), 0);
  if (contrastive) return norm(first - second, 2, {2});
  const Shape& shape = seen.shape();
  const Shape pairs{rows, columns, shape[1], 1, shape[3], shape[4]};
  const auto all = [&](const Variable& x) {
    return reshape(expand(x, pairs), {rows * columns, shape[1], 1, shape[3], shape[4]});
  };
  const Variable cosines =
      Siamese::correlated(all(first), all(second), {0, options_.radius, options_.radius});
  return reshape(mean(amax(cosines, {1}), {1, 2, 3}), {rows, columns});
}

Variable SliceMatcher::loss(const Variable& a, const Variable& b, const Tensor& same) {
  const Variable asked(same), zero(Tensor::zeros({})), one(Tensor::full({}, 1.0));
  const Variable together = equal(asked, one), apart = equal(asked, zero), found = compared(a, b);
  if (options_.loss == MatchingLoss::contrastive) {  // contrastive_loss with a margin of 1
    return 0.25 * (mean_of(square(found), together) + mean_of(square(relu(1.0 - found)), apart));
  }
  const Variable logit = reshape((*scale_)(reshape(found, {-1, 1})), same.shape());
  return 0.5 * (mean_of(softplus(-logit), together) + mean_of(softplus(logit), apart));
}

std::vector<double> SliceMatcher::distances(const Tensor& a, const Tensor& b) {
  const NoGrad quiet;
  std::vector<double> result;
  for (std::int64_t first = 0; first < a.shape(0); first += kRows) {
    const Tensor some = a.rows(first, std::min(kRows, a.shape(0) - first));
    const Variable found = compared(Variable(some), Variable(b));
    const bool contrastive = options_.loss == MatchingLoss::contrastive;
    const std::vector<double> rows = (contrastive ? found : 1.0 - found).value().to_vector<double>();
    result.insert(result.end(), rows.begin(), rows.end());
  }
  return result;
}

void save_slice_matcher(const std::filesystem::path& path, const SliceMatcher& network) {
  save_described(path, network, kMetadataKey, to_json(network.options()));
}

std::unique_ptr<SliceMatcher> load_slice_matcher(const std::filesystem::path& path) {
  return load_described(path, kMetadataKey, "cinnabar train siamese", [](const nlohmann::json& description) {
    return std::make_unique<SliceMatcher>(options_from(description));
  });
}

MatchingTraining::MatchingTraining(SliceMatcher& network, const std::vector<Tensor>& stacks,
                                   const RandomWarp& warp, const MatchingTrainingOptions& options)
    : network_(network),
      stacks_(stacks),
      warp_(warp),
      options_(options),
      adam_(network.named_parameters(), {.learning_rate = options.learning_rate}) {
  CINNABAR_CHECK(!stacks.empty() && options.batch_size >= 1, kOp, "needs stacks, and batches of a slice");
  for (const Tensor& stack : stacks) {
    CINNABAR_CHECK(stack.rank() == 4 && stack.shape(0) >= 2, kOp, "needs stacks of slices, got ", stack);
    slices_ += stack.shape(0);
  }
  schedule_ = cosine_schedule(options.epochs * ((slices_ + options.batch_size - 1) / options.batch_size));
}

double MatchingTraining::epoch() {
  const auto turn = static_cast<std::uint64_t>(done_);
  const std::vector<double> u = random_uniform({slices_, kNumbers}, 0.0, 1.0, options_.seed,
                                               kPairStream + turn, Device::cpu(), DType::f64)
                                    .to_vector<double>();
  const auto below = [](double number, std::size_t end) {
    return static_cast<std::size_t>(number * static_cast<double>(end));
  };
  double total = 0.0;
  network_.train();
  for (std::int64_t begin = 0; begin < slices_; begin += options_.batch_size) {
    const std::int64_t here = std::min(options_.batch_size, slices_ - begin);
    std::vector<Variable> firsts, seconds;
    std::vector<double> heights;  // from 0, the lowest, to 1
    std::vector<float> same;
    double longest = 0.0;
    for (std::int64_t n = begin; n < begin + here; ++n) {
      const double* numbers = u.data() + n * kNumbers;
      const std::size_t count = stacks_.size(), one = below(numbers[0], count);
      // Another subject, or the same one where there is no other.
      const std::size_t other = count == 1 ? 0 : (one + 1 + below(numbers[1], count - 1)) % count;
      const Tensor &from = stacks_[one], &to = stacks_[other];
      const auto i = static_cast<std::int64_t>(below(numbers[2], static_cast<std::size_t>(from.shape(0))));
      firsts.emplace_back(from.rows(i, 1));
      seconds.emplace_back(to.rows(std::llround(same_height(i, from.shape(0), to.shape(0))), 1));
      heights.push_back(same_height(i, from.shape(0), 2));
      longest = std::max(longest, static_cast<double>(to.shape(0) - 1));
    }
    for (std::size_t i = 0; i < heights.size(); ++i) {
      for (std::size_t j = 0; j < heights.size(); ++j) {
        const double away = longest * std::abs(heights[i] - heights[j]);
        same.push_back(i == j ? 1.0f : away >= options_.gap ? 0.0f : -1.0f);
      }
    }
    const auto stream = kWarpStream + 2 * static_cast<std::uint64_t>(step_);
    const Tensor a = warp_(concat(firsts, 0).value(), options_.seed, stream);
    const Tensor b = warp_(concat(seconds, 0).value(), options_.seed, stream + 1);
    const Variable loss = network_.loss(Variable(a), Variable(b), Tensor::from(same, {here, here}));
    adam_.set_rate_factor(schedule_(step_++));
    adam_.clear_gradients();
    loss.backward();
    adam_.step();
    total += loss.value().item() * static_cast<double>(here);
  }
  ++done_;
  return total / static_cast<double>(slices_);
}

namespace {

/// Adds up how far matches are from where they should be.
struct MatchSums {
  double error = 0.0, within2 = 0.0, within4 = 0.0, weight = 0.0;

  void add(double away, double share) {
    error += share * away;
    within2 += away <= 2.0 ? share : 0.0;
    within4 += away <= 4.0 ? share : 0.0;
    weight += share;
  }
  MatchingScore score() const { return {error / weight, within2 / weight, within4 / weight}; }
};

/// Calls fn(a, b) for each ordered pair of different numbers below count.
template <class Function>
void for_pairs(std::size_t count, Function&& fn) {
  for (std::size_t a = 0; a < count; ++a) {
    for (std::size_t b = 0; b < count; ++b) {
      if (a != b) fn(a, b);
    }
  }
}

}  // namespace

MatchingScore score_matching(const SliceDistances& distances, const std::vector<Tensor>& stacks,
                             const RandomWarp& warp) {
  CINNABAR_CHECK(stacks.size() >= 2, kOp, "needs two stacks to match, got ", stacks.size());
  std::vector<Tensor> seen;
  for (std::size_t i = 0; i < stacks.size(); ++i) seen.push_back(warp(stacks[i], kTestSeed, kTestStream + i));
  MatchSums sums;
  for_pairs(stacks.size(), [&](std::size_t a, std::size_t b) {
    const std::int64_t rows = seen[a].shape(0), columns = seen[b].shape(0);
    const std::vector<double> table = distances(seen[a], seen[b]);
    for (std::int64_t i = 0; i < rows; ++i) {
      const auto row = table.begin() + i * columns;
      const auto found = static_cast<double>(std::min_element(row, row + columns) - row);
      sums.add(std::abs(found - same_height(i, rows, columns)), 1.0);
    }
  });
  return sums.score();
}

MatchingScore chance_matching(const std::vector<Tensor>& stacks) {
  MatchSums sums;
  for_pairs(stacks.size(), [&](std::size_t a, std::size_t b) {
    const std::int64_t rows = stacks[a].shape(0), columns = stacks[b].shape(0);
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < columns; ++j) {
        sums.add(std::abs(static_cast<double>(j) - same_height(i, rows, columns)),
                 1.0 / static_cast<double>(columns));
      }
    }
  });
  return sums.score();
}

std::vector<double> correlation_distances(const Tensor& a, const Tensor& b) {
  const NoGrad quiet;
  const auto normalised = [](const Tensor& images) {
    const Variable rows(images.reshape({images.shape(0), -1}));
    const Variable centred = rows - mean(rows, {1}, true);
    return centred / (norm(centred, 2, {1}, true) + 1e-6);
  };
  return (1.0 - matmul(normalised(a), normalised(b), false, true)).value().to_vector<double>();
}

}  // namespace cinnabar
