// Asks networks for the pixel at coordinates x, y, a quarter of which, the upper right quadrant, they were
// never taught: transposed convolutions, and a CoordConv network of far fewer parameters.
//   example_coord_conv PICTURE.png [EPOCHS]
// The picture shows the places asked for, then those that either network tells: dark those it was taught,
// bright the others. Printed are the shares of places named right and how far off the others are. The default
// of 20 epochs takes about 15 s on one core.

#include <cstdio>
#include <cstdlib>

#include "models/coord_task.hpp"
#include "registration/slice_picture.hpp"

using namespace cinnabar;

constexpr std::int64_t kSide = 32;

/// Brightens the pixels nearest to the places of `picture` that lie in it.
template <class Places>
void draw(Tensor& picture, const Places& places, float value) {
  for (const auto& [x, y] : places) {
    const auto column = static_cast<std::int64_t>(x), row = static_cast<std::int64_t>(y);
    picture.data<float>()[row * kSide + column] = value;
  }
}

int main(int count, char** words) try {
  if (count < 2) return std::fprintf(stderr, "usage: example_coord_conv PICTURE [EPOCHS]\n"), 2;
  const std::int64_t epochs = count > 2 ? std::atoll(words[2]) : 20;
  const CoordPlaces places = split_places(CoordSplit::quadrant, kSide, 5);
  std::vector<Variable> pictures;
  const auto show = [&](const auto& trained, const auto& tested) {
    Tensor picture = Tensor::zeros({1, 1, kSide, kSide});
    draw(picture, trained, 0.4f);
    draw(picture, tested, 1.0f);
    pictures.emplace_back(picture);
  };
  show(places.training, places.test);
  for (const CoordLayer layer : {CoordLayer::plain, CoordLayer::coordconv}) {
    CoordTraining training({.layer = layer, .side = kSide, .epochs = epochs}, places.training);
    while (training.epochs_done() < epochs) training.epoch();
    const CoordScore taught = training.score(places.training), others = training.score(places.test);
    std::printf("parameters %lld taught %.3f %s others %.3f away %.2f px\n",
                static_cast<long long>(training.network().parameter_count()), taught.right,
                coord_layer_names()[static_cast<std::size_t>(layer)].c_str(), others.right, others.distance);
    show(training.told(places.training), training.told(places.test));
  }
  registration::write_slices(words[1], pictures, std::vector<Variable>(pictures.size()), 3, 6);
} catch (const std::exception& error) {
  return std::fprintf(stderr, "example_coord_conv: %s\n", error.what()), 1;
}
