// Teaches a Siamese network which slices of a brain show the same place, from whatever side they are seen,
// and finds slices again that lie between those that were taught.
//   example_siamese SCAN.nii.gz PICTURE.png [EPOCHS]
// Rows of the picture: slices, the slice that the network finds to each, and the one that cross-correlation
// finds, among as many that were warped otherwise. The default of 200 epochs takes about 20 s on one core.

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "autograd/layout.hpp"
#include "models/slice_matching.hpp"
#include "registration/brain_slices.hpp"
#include "registration/nifti.hpp"
#include "registration/slice_picture.hpp"

using namespace cinnabar;

int main(int count, char** words) try {
  if (count < 3) return std::fprintf(stderr, "usage: example_siamese SCAN PICTURE [EPOCHS]\n"), 2;
  const std::int64_t epochs = count > 3 ? std::atoll(words[3]) : 200;
  const Tensor all = registration::axial_slices(registration::read_image(words[1])).images;
  const Tensor taught = slice(Variable(all), 0, 0, all.shape(0), 2).value();
  const Tensor others = slice(Variable(all), 0, 1, all.shape(0), 2).value();
  const RandomWarp warp("homography", {48, 48});
  SliceMatcher net({.seed = 1});
  MatchingTraining training(net, {taught}, warp, {.epochs = epochs, .learning_rate = 3e-3});
  while (training.epochs_done() < epochs) training.epoch();

  const std::vector<Tensor> twice{others, others};
  const SliceDistances by_network = [&](const Tensor& a, const Tensor& b) { return net.distances(a, b); };
  const double mm = 2 * registration::SliceOptions{}.distance_mm;
  std::printf("error of chance %.2f mm, cross-correlation %.2f mm, network %.2f mm\n",
              mm * chance_matching(twice).error,
              mm * score_matching(correlation_distances, twice, warp).error,
              mm * score_matching(by_network, twice, warp).error);

  const Tensor asked = warp(others, 1, 0), among = warp(others, 1, 1);
  std::vector<Variable> rows[3];
  for (std::int64_t i = 2; i < others.shape(0); i += 3) {
    const auto nearest = [&](const std::vector<double>& distances) {
      return among.rows(std::min_element(distances.begin(), distances.end()) - distances.begin(), 1);
    };
    const Tensor one = asked.rows(i, 1);
    rows[0].emplace_back(one);
    rows[1].emplace_back(nearest(by_network(one, among)));
    rows[2].emplace_back(nearest(correlation_distances(one, among)));
  }
  std::vector<Variable> pictures;
  for (const auto& row : rows) pictures.insert(pictures.end(), row.begin(), row.end());
  registration::write_slices(words[2], pictures, std::vector<Variable>(pictures.size()),
                             static_cast<std::int64_t>(rows[0].size()), 2);
} catch (const std::exception& error) {
  return std::fprintf(stderr, "example_siamese: %s\n", error.what()), 1;
}
