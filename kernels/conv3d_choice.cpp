#include "kernels/conv3d_choice.hpp"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <limits>

#include "engine/choice_cache.hpp"
#include "kernels/conv3d_precision.hpp"

namespace cinnabar {

namespace {

using Backend = Conv3dBackend;

constexpr const char* kOp = "conv3d";
constexpr std::pair<Backend, std::string_view> kNames[] = {
    {Backend::by_rule, "by_rule"},
    {Backend::automatic, "automatic"},
    {Backend::reference, "reference"},
    {Backend::gemm, "gemm"},
    {Backend::fft, "fft"},
    {Backend::direct, "direct"},
    {Backend::mma, "mma"},
    {Backend::cudnn, "cudnn"},
};
constexpr std::string_view kPassNames[] = {"forward", "backward_input", "backward_weight"};
constexpr std::int64_t kFftVoxels = 64 * 64 * 64;  // spectra of larger inputs may not fit into memory
constexpr int kTimings = 3;                        // of each backend, the best counts
constexpr double kLongSeconds = 0.5;               // a first run that takes longer is its timing

bool can_compute(Backend backend, Conv3dPrecision precision, const Conv3dShape& shape, Device device) {
  return conv3d_has_backend(device, backend, precision) && conv3d_is_eligible(backend, device, shape);
}

/// Those that may be the fastest.
std::vector<std::string> candidates(Conv3dPrecision precision, const Conv3dShape& shape, Device device) {
  std::vector<std::string> names;
  for (const Backend backend : {Backend::gemm, Backend::fft, Backend::direct, Backend::mma, Backend::cudnn}) {
    if (backend == Backend::fft && shape.in_volume() > kFftVoxels) continue;
    if (can_compute(backend, precision, shape, device)) names.emplace_back(name_of(backend));
  }
  return names;
}

/// Everything that may change which one is the fastest.
std::string key_of(Conv3dPass pass, Conv3dPrecision precision, const Conv3dShape& shape, const Tensor& like,
                   const std::vector<std::string>& names) {
  std::ostringstream key;
  key << "conv3d " << kPassNames[static_cast<int>(pass)] << ' ' << like.dtype() << ' ';
  if (precision != Conv3dPrecision::fp32) key << "as " << name_of(precision) << ' ';
  key << shape.batch << 'x' << shape.groups << 'x' << shape.in_channels << "->" << shape.out_channels;
  for (const Conv3dAxis& axis : shape.axis) {
    key << ", " << axis.in << "->" << axis.out << " kernel " << axis.kernel << " stride " << axis.stride
        << " padding " << axis.padding << " dilation " << axis.dilation;
  }
  key << ", on " << device_properties(like.device()).name;
  if (like.device().is_cpu()) key << ", " << omp_get_max_threads() << " threads";
  key << ", of";
  for (const std::string& name : names) key << ' ' << name;
  return key.str();
}

double seconds_of(Device device, const std::function<void()>& run) {
  synchronize(device);
  const auto start = std::chrono::steady_clock::now();
  run();
  synchronize(device);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Infinite where the backend fails, as cuDNN does on shapes that it does not know.
double best_seconds(Device device, const std::function<void()>& run) {
  try {
    double best = seconds_of(device, run);  // makes plans too
    if (best > kLongSeconds) return best;
    for (int k = 0; k < kTimings; ++k) best = std::min(best, seconds_of(device, run));
    return best;
  } catch (const std::exception&) {
    return std::numeric_limits<double>::infinity();
  }
}

}  // namespace

std::string_view name_of(Conv3dBackend backend) {
  return std::find_if(std::begin(kNames), std::end(kNames),
                      [backend](const auto& entry) { return entry.first == backend; })
      ->second;
}

Conv3dBackend parse_conv3d_backend(std::string_view name) {
  std::string known;
  for (const auto& [backend, text] : kNames) {
    if (text == name) return backend;
    known += known.empty() ? "" : ", ";
    known += text;
  }
  fail_input("convolution backend '", name, "' is not known: use one of ", known);
}

Conv3dBackend choose_conv3d_backend(const Conv3dOptions& options, Conv3dBackend rule, Conv3dPass pass,
                                    const Conv3dShape& shape, const Tensor& like,
                                    const std::function<void(Conv3dBackend)>& run) {
  const Device device = like.device();
  const Backend wanted = options.backend;
  const Conv3dPrecision precision = options.precision;
  CINNABAR_CHECK(conv3d_has_backend(device, wanted, precision), kOp, "no backend ", name_of(wanted), " in ",
                 name_of(precision), " on ", device, " in this build");
  CINNABAR_CHECK(can_compute(wanted, precision, shape, device), kOp, "the backend ", name_of(wanted),
                 " needs stride 1 and dilation 1 on every axis, and on the CPU direct",
                 " padding below the kernel's extent");
  if (wanted == Backend::by_rule) return rule;
  if (wanted != Backend::automatic) return wanted;
  const std::vector<std::string> names = candidates(precision, shape, device);
  if (names.size() == 1) return parse_conv3d_backend(names.front());
  const auto measure = [&] {
    std::string fastest = std::string(name_of(rule));
    double least = std::numeric_limits<double>::infinity();
    for (const std::string& name : names) {
      const double seconds = best_seconds(device, [&] { run(parse_conv3d_backend(name)); });
      if (seconds < least) fastest = name;
      least = std::min(least, seconds);
    }
    return fastest;
  };
  return parse_conv3d_backend(
      choice_cache().choose(key_of(pass, precision, shape, like, names), names, measure));
}

}  // namespace cinnabar
