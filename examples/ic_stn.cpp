// Teaches an inverse-compositional spatial transformer to straighten slices of a brain, as
// spatial_transformer.cpp does, and shows how it gets there step by step.
//   example_ic_stn SCAN.nii.gz PICTURE.png [STEPS]
// A row of the picture is a slice: as it comes in, after each of four recursions, and as it should be. The
// default of 400 steps takes about 20 s.

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "examples/straightening.hpp"
#include "models/ic_stn.hpp"
#include "registration/slice_picture.hpp"

using namespace cinnabar;

/// Images [N, 1, H, W] one above another, [1, 1, N H, W]: the first at the bottom.
Variable column_of(const Variable& images) {
  const Shape& shape = images.shape();
  return reshape(images, {1, 1, shape[0] * shape[2], shape[3]});
}

int main(int count, char** words) try {
  if (count < 3) return std::fprintf(stderr, "usage: example_ic_stn SCAN PICTURE [STEPS]\n"), 2;
  const std::int64_t steps = count > 3 ? std::atoll(words[3]) : 400;
  const Tensor slices = middle_slices(words[1]);
  const RandomWarp warp("affine", {48, 48});

  Generator weights(1);
  IcStn net(1, make_grid_generator("affine", {48, 48}), LocalisationOptions{}, weights);
  teach_to_straighten(net, slices, warp, steps);

  const NoGrad quiet;
  const Variable seen(warp(slices, 2, 0)), truth(slices);
  const auto some = [](const Variable& x) { return column_of(slice(x, 0, 3, 15, 3)).value(); };
  std::vector<Tensor> columns{some(seen)};
  std::printf("difference before %.4f", std::sqrt(mse_loss(seen, truth).value().item()));
  for (int recursions = 1; recursions <= net.recursions(); ++recursions) {
    const Variable image = transformed(seen, net.warp(), net.transformation(seen, recursions));
    std::printf(" after%d %.4f", recursions, std::sqrt(mse_loss(image, truth).value().item()));
    columns.push_back(some(image));
  }
  std::printf("\n");
  columns.push_back(some(truth));
  registration::write_slices(words[2], columns);
  return 0;
} catch (const std::exception& error) {
  return std::fprintf(stderr, "example_ic_stn: %s\n", error.what()), 1;
}
