// Trains a small network to take noise off a brain scan: patches of the left half teach it, the right half,
// which it never sees, says how well it does.
//   example_denoise SCAN.nii.gz PICTURE.png [STEPS]
// The default of 600 steps takes about 30 s on 2 cores. For Debian's mricron-data:
// /usr/share/mricron/templates/ch2bet.nii.gz.

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "autograd/elementwise.hpp"
#include "autograd/gaussian_smooth.hpp"
#include "autograd/layout.hpp"
#include "autograd/losses.hpp"
#include "autograd/random.hpp"
#include "autograd/reduce.hpp"
#include "data/data_loader.hpp"
#include "data/patch_sampler.hpp"
#include "layers/activation.hpp"
#include "layers/conv3d.hpp"
#include "layers/optimizer.hpp"
#include "layers/sequential.hpp"
#include "registration/nifti.hpp"
#include "registration/slice_picture.hpp"

using namespace cinnabar;

/// With normal noise, 0.08 of the brightest voxel.
Variable add_noise(const Variable& clean, Generator& generator) {
  return clean + Variable(random_normal(clean.shape(), 0.0, 0.08, generator.take(clean.value().numel())));
}

/// Learns to predict the noise (Zhang et al., TIP 2017).
void train(Sequential& net, const Tensor& scan, std::int64_t steps) {
  Generator weights(1), noise(2);
  for (std::int64_t channels = 1, layer = 0; layer < 4; ++layer, channels = 16) {
    net.add<Conv3dLayer>(channels, 16, conv_cubes(3, 1), weights);
    net.add<PRelu>();
  }
  net.add<Conv3dLayer>(16, 1, conv_cubes(3, 1), weights);
  DataLoader loader(PatchSampler(VolumeSet({{{"scan", scan}}}), {.patch = {16, 16, 16}, .batch_size = 8}));
  Adam adam(net.named_parameters(), {.learning_rate = 3e-3});
  for (std::int64_t step = 0; step < steps; ++step) {
    const Variable clean(loader.next().at("scan")), noisy = add_noise(clean, noise);
    adam.set_rate_factor(cosine_schedule(steps)(step));
    adam.clear_gradients();
    mse_loss(noisy - net(noisy), clean).backward();
    adam.step();
  }
}

int main(int count, char** words) try {
  if (count < 3) return std::fprintf(stderr, "usage: example_denoise SCAN PICTURE [STEPS]\n"), 2;
  const Variable voxels(registration::read_image(words[1]).voxels), scan = voxels / amax(voxels);
  const std::int64_t width = scan.shape()[4], z = scan.shape()[2] / 2;
  Sequential net;
  train(net, slice(scan, 4, 0, width / 2).value(), count > 3 ? std::atoll(words[3]) : 600);

  const NoGrad quiet;
  Generator noise(3);
  const Variable clean = slice(slice(scan, 4, width / 2, width), 2, z - 16, z + 16);
  const Variable noisy = add_noise(clean, noise), denoised = noisy - net(noisy);
  const Variable smoothed = gaussian_smooth(noisy, {0.7, 0.7, 0.7});
  const auto decibels = [&](const Variable& image) {  // peak signal to noise ratio
    return -10.0 * std::log10(mse_loss(image, clean).value().item());
  };
  std::printf("noisy %.2f dB, smoothed %.2f dB, denoised %.2f dB\n", decibels(noisy), decibels(smoothed),
              decibels(denoised));
  registration::write_slices(words[2], {clean.value(), noisy.value(), smoothed.value(), denoised.value()});
  return 0;
} catch (const std::exception& error) {
  return std::fprintf(stderr, "example_denoise: %s\n", error.what()), 1;
}
