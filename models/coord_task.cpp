#include "models/coord_task.hpp"

#include <algorithm>
#include <cmath>

#include "autograd/cross_entropy.hpp"
#include "autograd/layout.hpp"
#include "autograd/losses.hpp"
#include "autograd/reduce.hpp"
#include "layers/activation.hpp"
#include "layers/conv3d.hpp"
#include "layers/coord_conv.hpp"
#include "layers/linear.hpp"
#include "models/row_order.hpp"

namespace cinnabar {

namespace {

using Places = std::vector<std::array<std::int64_t, 2>>;

constexpr const char* kOp = "coord_task";
constexpr std::uint64_t kSplitStream = 1, kOrderStream = 1'000;
constexpr std::size_t kChunk = 64;  ///< places scored at a time
/// Of the pixel to find. Brighter than any coordinate, it is the maximum of some channels from the start;
/// with 1 one training of three did not begin to learn.
constexpr float kBrightness = 8.0f;
constexpr std::int64_t kWidth = 16;  ///< channels of the CoordConv networks

double coordinate(std::int64_t pixel, std::int64_t side) {
  return 2.0 * static_cast<double>(pixel) / static_cast<double>(side - 1) - 1.0;
}

/// Coordinates f32 [N, 2] of places.
Tensor coordinates_of(const Places& places, std::int64_t side) {
  std::vector<float> values;
  for (const auto& place : places) {
    for (const std::int64_t pixel : place) values.push_back(static_cast<float>(coordinate(pixel, side)));
  }
  return Tensor::from(values, {static_cast<std::int64_t>(places.size()), 2});
}

/// Images f32 [N, 1, 1, side, side], bright at the place and 0 elsewhere.
Tensor images_of(const Places& places, std::int64_t side) {
  const auto count = static_cast<std::int64_t>(places.size());
  Tensor images = Tensor::zeros({count, 1, 1, side, side});
  float* value = images.data<float>();
  for (const auto& [x, y] : places) {
    value[y * side + x] = kBrightness;
    value += side * side;
  }
  return images;
}

/// Numbers of the pixels, i64 [N].
Tensor pixels_of(const Places& places, std::int64_t side) {
  std::vector<std::int64_t> values;
  for (const auto& [x, y] : places) values.push_back(y * side + x);
  return Tensor::from(values, {static_cast<std::int64_t>(places.size())});
}

/// A convolution behind a rectifier starts with normal weights and no bias.
template <class Layer>
void initialise(Layer& layer, Generator& weights) {
  layer.weight.set_value(kaiming_normal(layer.weight.shape(), weights));
  layer.bias.set_value(Tensor::zeros(layer.bias.shape()));
}

/// From channels of coordinates at every pixel, or the image, to `out` channels: the CoordConv layer and
/// convolutions of one tap.
void add_coordconv(Sequential& body, std::int64_t in, std::int64_t out, Generator& weights) {
  body.add<CoordConvLayer>(in, kWidth, conv_squares(1), weights, CoordConvOptions{.axes = 2});
  body.add<Relu>();
  initialise(body.add<Conv3dLayer>(kWidth, kWidth, conv_squares(1), weights), weights);
  body.add<Relu>();
  body.add<Conv3dLayer>(kWidth, out, conv_squares(1), weights);
}

/// From one pixel to side x side: each transposed convolution doubles the extents.
void add_plain_upwards(Sequential& body, std::int64_t side, Generator& weights) {
  std::int64_t channels = 2;
  for (std::int64_t extent = 2; extent < side; extent *= 2) {
    const std::int64_t next = std::clamp<std::int64_t>(512 / extent, 16, 64);
    body.add<ConvTranspose3dLayer>(channels, next, conv_squares(4, 1, 2), weights);
    body.add<Relu>();
    channels = next;
  }
  body.add<ConvTranspose3dLayer>(channels, 1, conv_squares(4, 1, 2), weights);
}

/// From side x side to one pixel of 64 channels: each convolution halves the extents.
void add_plain_downwards(Sequential& body, std::int64_t side, Generator& weights) {
  std::int64_t channels = 1;
  for (std::int64_t extent = side / 2; extent >= 1; extent /= 2) {
    const std::int64_t next = extent == 1 ? 64 : std::clamp<std::int64_t>(512 / extent, 16, 64);
    initialise(body.add<Conv3dLayer>(channels, next, conv_squares(3, 1, 2), weights), weights);
    body.add<Relu>();
    channels = next;
  }
}

CoordOptions with_defaults(CoordOptions options) {
  const bool coordconv = options.layer == CoordLayer::coordconv;
  if (options.epochs == 0) {
    options.epochs = options.task == CoordTask::regress ? 8 : coordconv ? 3 : 10;
  }
  if (options.learning_rate == 0.0) options.learning_rate = coordconv ? 1e-2 : 2e-3;
  return options;
}

}  // namespace

const std::vector<std::string>& coord_task_names() {
  static const std::vector<std::string> names{"classify", "regress"};
  return names;
}

const std::vector<std::string>& coord_layer_names() {
  static const std::vector<std::string> names{"plain", "coordconv"};
  return names;
}

const std::vector<std::string>& coord_split_names() {
  static const std::vector<std::string> names{"uniform", "quadrant"};
  return names;
}

CoordPlaces split_places(CoordSplit split, std::int64_t side, std::int64_t square, std::uint64_t seed) {
  CINNABAR_CHECK(square >= 1 && square % 2 == 1 && square < side, kOp,
                 "needs squares of an odd number of pixels within ", side, ", got ", square);
  const std::int64_t first = square / 2, end = side - square / 2, along = end - first;
  const std::vector<std::int64_t> order = shuffled_rows(along * along, seed, kSplitStream);
  CoordPlaces places;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const std::int64_t x = first + order[i] % along, y = first + order[i] / along;
    const bool tested = split == CoordSplit::uniform ? i % 4 == 0 : x >= side / 2 && y >= side / 2;
    (tested ? places.test : places.training).push_back({x, y});
  }
  return places;
}

CoordNetwork::CoordNetwork(const CoordOptions& options) : options_(options) {
  const std::int64_t side = options.side;
  CINNABAR_CHECK(side >= 8 && side <= 256 && (side & (side - 1)) == 0, kOp,
                 "needs images of 8, 16, .. or 256 pixels a side, got ", side);
  Generator weights(options.seed);
  const bool regress = options.task == CoordTask::regress;
  if (options.layer == CoordLayer::coordconv) {
    add_coordconv(body_, regress ? 1 : 2, regress ? kWidth : 1, weights);
    if (regress) head_.add<Linear>(kWidth, 2, weights);
  } else if (regress) {
    add_plain_downwards(body_, side, weights);
    head_.add<Linear>(64, 2, weights);
  } else {
    add_plain_upwards(body_, side, weights);
  }
  add_child("body", body_);
  add_child("head", head_);
}

Variable CoordNetwork::forward(const Variable& x) {
  const std::int64_t count = x.shape()[0], side = options_.side;
  if (options_.task == CoordTask::regress) return head_(amax(body_(x), {2, 3, 4}));
  const Variable pixel = reshape(x, {count, 2, 1, 1, 1});
  const bool coordconv = options_.layer == CoordLayer::coordconv;
  return reshape(body_(coordconv ? expand(pixel, {count, 2, 1, side, side}) : pixel), {count, side * side});
}

CoordTraining::CoordTraining(const CoordOptions& options, const Places& places)
    : options_(with_defaults(options)),
      places_(places),
      network_(options_),
      adam_(network_.named_parameters(), {.learning_rate = options_.learning_rate}) {
  CINNABAR_CHECK(!places.empty() && options.batch_size >= 1, kOp, "needs places to train on");
  const auto count = static_cast<std::int64_t>(places.size());
  schedule_ = cosine_schedule(options_.epochs * ((count + options.batch_size - 1) / options.batch_size));
}

double CoordTraining::epoch() {
  const auto count = static_cast<std::int64_t>(places_.size());
  const std::vector<std::int64_t> order =
      shuffled_rows(count, options_.seed, kOrderStream + static_cast<std::uint64_t>(done_));
  double total = 0.0;
  for (std::int64_t first = 0; first < count; first += options_.batch_size) {
    Places batch;
    for (std::int64_t i = first; i < std::min(first + options_.batch_size, count); ++i) {
      batch.push_back(places_[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])]);
    }
    const Tensor coordinates = coordinates_of(batch, options_.side);
    const Variable loss =
        options_.task == CoordTask::regress
            ? mse_loss(network_.forward(Variable(images_of(batch, options_.side))), Variable(coordinates))
            : cross_entropy_loss(network_.forward(Variable(coordinates)), pixels_of(batch, options_.side));
    adam_.set_rate_factor(schedule_(step_++));
    adam_.clear_gradients();
    loss.backward();
    adam_.step();
    total += loss.value().item() * static_cast<double>(batch.size());
  }
  ++done_;
  return total / static_cast<double>(count);
}

std::vector<std::array<double, 2>> CoordTraining::told(const Places& places) {
  const NoGrad quiet;
  const std::int64_t side = options_.side;
  std::vector<std::array<double, 2>> result;
  for (std::size_t first = 0; first < places.size(); first += kChunk) {
    const auto begin = places.begin() + static_cast<std::ptrdiff_t>(first);
    const Places chunk(begin, begin + static_cast<std::ptrdiff_t>(std::min(kChunk, places.size() - first)));
    const bool regress = options_.task == CoordTask::regress;
    const Variable in(regress ? images_of(chunk, side) : coordinates_of(chunk, side));
    const std::vector<double> out = network_.forward(in).value().to_vector<double>();
    for (std::size_t i = 0; i < chunk.size(); ++i) {
      if (regress) {
        const double scale = 0.5 * static_cast<double>(side - 1);
        result.push_back({(out[2 * i] + 1.0) * scale, (out[2 * i + 1] + 1.0) * scale});
        continue;
      }
      const auto row = out.begin() + static_cast<std::ptrdiff_t>(i) * side * side;
      const std::int64_t pixel = std::max_element(row, row + side * side) - row;
      result.push_back({static_cast<double>(pixel % side), static_cast<double>(pixel / side)});
    }
  }
  return result;
}

CoordScore CoordTraining::score(const Places& places) {
  const std::vector<std::array<double, 2>> told_places = told(places);
  CoordScore score;
  for (std::size_t i = 0; i < places.size(); ++i) {
    const double x = told_places[i][0] - static_cast<double>(places[i][0]);
    const double y = told_places[i][1] - static_cast<double>(places[i][1]);
    score.right += std::abs(x) < 0.5 && std::abs(y) < 0.5 ? 1.0 : 0.0;
    score.distance += std::hypot(x, y);
  }
  const auto count = static_cast<double>(places.size());
  return {score.right / count, score.distance / count};
}

}  // namespace cinnabar
