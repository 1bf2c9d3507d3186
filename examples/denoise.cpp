// Trains a small network to take noise off a brain scan: patches of the left half teach it, the right half,
// which it never sees, says how well it does.
//   example_denoise SCAN.nii.gz PICTURE.png [STEPS]
// The default of 600 steps takes about 30 s on 2 cores. For Debian's mricron-data:
// /usr/share/mricron/templates/ch2bet.nii.gz.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>

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
#include "registration/canvas.hpp"
#include "registration/nifti.hpp"
#include "registration/output_file.hpp"

using namespace cinnabar;

namespace {

constexpr double kNoise = 0.08;  // of the brightest voxel

Variable add_noise(const Variable& clean, Generator& generator) {
  return clean + Variable(random_normal(clean.shape(), 0.0, kNoise, generator.take(clean.value().numel())));
}

/// Peak signal to noise ratio in decibels; the peak is 1.
double psnr(const Variable& image, const Variable& truth) {
  return -10.0 * std::log10(mse_loss(image, truth).value().item());
}

/// Residual learning: the network predicts the noise (Zhang et al., TIP 2017).
std::unique_ptr<Sequential> train(const Tensor& scan, std::int64_t steps) {
  Generator weights(1), noise(2);
  auto net = std::make_unique<Sequential>();
  for (std::int64_t channels = 1, layer = 0; layer < 4; ++layer, channels = 16) {
    net->add<Conv3dLayer>(channels, 16, conv_cubes(3, 1), weights);
    net->add<PRelu>();
  }
  net->add<Conv3dLayer>(16, 1, conv_cubes(3, 1), weights);
  DataLoader loader(PatchSampler(VolumeSet({{{"scan", scan}}}), {.patch = {16, 16, 16}, .batch_size = 8}));
  Adam adam(net->named_parameters(), {.learning_rate = 3e-3});
  const Schedule schedule = cosine_schedule(steps);
  for (std::int64_t step = 0; step < steps; ++step) {
    const Variable clean(loader.next().at("scan"));
    const Variable noisy = add_noise(clean, noise);
    adam.set_rate_factor(schedule(step));
    adam.clear_gradients();
    mse_loss(noisy - (*net)(noisy), clean).backward();
    adam.step();
  }
  return net;
}

void draw(const std::vector<Variable>& images, const char* path) {
  const Shape& shape = images.front().shape();
  const std::int64_t z = shape[2] / 2, height = shape[3], width = shape[4];
  registration::Canvas canvas(width * static_cast<std::int64_t>(images.size()), height, {0, 0, 0});
  for (std::size_t i = 0; i < images.size(); ++i) {
    const auto values = slice(images[i], 2, z, z + 1).value().to_vector<float>();
    for (std::int64_t p = 0; p < height * width; ++p) {
      const float grey = std::clamp(values[static_cast<std::size_t>(p)], 0.0f, 1.0f);
      canvas.set(p % width + static_cast<std::int64_t>(i) * width, height - 1 - p / width,
                 {grey, grey, grey});
    }
  }
  registration::OutputFile file(path);
  file.write(canvas.to_png());
  file.commit();
}

}  // namespace

int main(int count, char** words) try {
  if (count < 3) return std::fprintf(stderr, "usage: example_denoise SCAN PICTURE [STEPS]\n"), 2;
  Variable scan(registration::read_image(words[1]).voxels);
  scan = scan / amax(scan);
  const std::int64_t width = scan.shape()[4];
  const Variable left = slice(scan, 4, 0, width / 2), right = slice(scan, 4, width / 2, width);
  const auto net = train(left.value(), count > 3 ? std::atoll(words[3]) : 600);

  const NoGrad quiet;
  Generator noise(3);
  const Variable clean = slice(right, 2, scan.shape()[2] / 2 - 16, scan.shape()[2] / 2 + 16);
  const Variable noisy = add_noise(clean, noise), denoised = noisy - (*net)(noisy);
  const Variable smoothed(gaussian_smooth(noisy.value(), {0.7, 0.7, 0.7}));
  std::printf("noisy %.2f dB, smoothed %.2f dB, denoised %.2f dB\n", psnr(noisy, clean),
              psnr(smoothed, clean), psnr(denoised, clean));
  draw({clean, noisy, smoothed, denoised}, words[2]);
  return 0;
} catch (const std::exception& error) {
  return std::fprintf(stderr, "example_denoise: %s\n", error.what()), 1;
}
