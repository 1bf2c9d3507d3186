#include "data/volume_set.hpp"

#include <algorithm>
#include <iterator>
#include <limits>

#include "engine/safetensors.hpp"
#include "kernels/patches.hpp"

namespace cinnabar {

namespace {

constexpr const char* kOp = "volume_set";

/// Throws InputError unless the images make a stack that fits `like`, the first one.
void check_stack(const Batch& images, const Batch& like) {
  if (images.empty()) fail_input("there is no volume");
  const Tensor& first = images.begin()->second;
  for (const auto& [name, image] : images) {
    if (!image.defined() || image.rank() != 5 || image.numel() == 0) {
      fail_input("volume '", name, "' must be [V, C, D, H, W], got ", image);
    }
    if (image.dtype() != DType::f32 && image.dtype() != DType::u8) {
      fail_input("volume '", name, "' must be f32 or u8, got ", image);
    }
    if (image.shape().with(1, 1) != first.shape().with(1, 1) || image.device() != first.device()) {
      fail_input("volume '", name, "' is ", image, " beside ", first);
    }
    const auto same = like.find(name);
    if (same == like.end()) fail_input("volume '", name, "' is not in the first stack");
    if (image.shape(1) != same->second.shape(1) || image.dtype() != same->second.dtype() ||
        image.device() != same->second.device()) {
      fail_input("volume '", name, "' is ", image, ", in the first stack ", same->second);
    }
  }
  for (const auto& [name, image] : like) {
    if (!images.contains(name)) fail_input("volume '", name, "' of the first stack is missing");
  }
}

VolumeSet read_files(const std::vector<std::filesystem::path>& files, bool mapped) {
  if (files.empty()) fail_input("there is no file of volumes");
  std::vector<Batch> stacks;
  for (const std::filesystem::path& path : files) {
    const SafeTensorsFile file(path);
    Batch& images = stacks.emplace_back();
    for (const std::string& name : file.names()) images[name] = mapped ? file.view(name) : file.read(name);
    try {
      check_stack(images, stacks.front());
    } catch (const InputError& error) {
      fail_input(path.string(), ": ", error.what());
    }
  }
  return VolumeSet(std::move(stacks));
}

Shape spatial_of(const Batch& images) {
  const Shape& shape = images.begin()->second.shape();
  return {shape[2], shape[3], shape[4]};
}

}  // namespace

VolumeSet::VolumeSet(std::vector<Batch> stacks) {
  CINNABAR_CHECK(!stacks.empty(), kOp, "no stack");
  for (Batch& images : stacks) {
    try {
      check_stack(images, stacks_.empty() ? images : stacks_.front().images);
    } catch (const InputError& error) {
      fail(kOp, error.what());
    }
    const std::int64_t count = images.begin()->second.shape(0);
    stacks_.push_back({std::move(images), size_, count});
    size_ += count;
  }
  CINNABAR_CHECK(size_ <= std::numeric_limits<std::int32_t>::max(), kOp, "too many volumes: ", size_);
}

VolumeSet VolumeSet::load(const std::vector<std::filesystem::path>& files) {
  return read_files(files, false);
}

VolumeSet VolumeSet::map(const std::vector<std::filesystem::path>& files) {
  return read_files(files, true);
}

VolumeSet VolumeSet::to(Device device) const {
  std::vector<Batch> stacks;
  for (const Stack& stack : stacks_) {
    Batch& moved = stacks.emplace_back();
    for (const auto& [name, image] : stack.images) moved[name] = image.to(device);
  }
  return VolumeSet(std::move(stacks));
}

std::vector<std::string> VolumeSet::names() const {
  std::vector<std::string> result;
  for (const auto& [name, image] : stacks_.front().images) result.push_back(name);
  return result;
}

const VolumeSet::Stack& VolumeSet::stack_of(std::int64_t volume) const {
  CINNABAR_CHECK(volume >= 0 && volume < size_, kOp, "there is no volume ", volume, " among ", size_);
  const auto behind = std::upper_bound(stacks_.begin(), stacks_.end(), volume,
                                       [](std::int64_t v, const Stack& stack) { return v < stack.first; });
  return *std::prev(behind);
}

Shape VolumeSet::spatial(std::int64_t volume) const {
  return spatial_of(stack_of(volume).images);
}

Batch VolumeSet::gather(const Tensor& starts, const Shape& patch) const {
  CINNABAR_CHECK(starts.defined() && starts.rank() == 2 && starts.shape(1) == 4 && starts.device().is_cpu() &&
                     patch.rank() == 3,
                 kOp, "needs starts [N, 4] on the CPU and extents (d, h, w), got ", starts, " and ", patch);
  require_dtype(kOp, starts, DType::i32);
  const std::int64_t count = starts.shape(0);
  Batch batch;
  for (const auto& [name, image] : stacks_.front().images) {
    batch[name] =
        Tensor::empty({count, image.shape(1), patch[0], patch[1], patch[2]}, image.dtype(), device());
  }
  // The table with the subjects numbered within their stacks, and the stack of every row.
  Tensor within = starts.clone();
  std::vector<const Stack*> stack_of_row;
  for (std::int64_t n = 0; n < count; ++n) {
    std::int32_t& volume = within.data<std::int32_t>()[4 * n];
    stack_of_row.push_back(&stack_of(volume));
    volume -= static_cast<std::int32_t>(stack_of_row.back()->first);
  }
  const Tensor places = within.to(device());
  for (auto run = stack_of_row.begin(); run != stack_of_row.end();) {
    const auto end = std::find_if(run, stack_of_row.end(), [&](const Stack* stack) { return stack != *run; });
    const std::int64_t first = run - stack_of_row.begin(), rows = end - run;
    for (const auto& [name, image] : (*run)->images) {
      Tensor patches = batch[name].rows(first, rows);
      patches_on(device()).gather(image, places.rows(first, rows), patches);
    }
    run = end;
  }
  return batch;
}

Tensor VolumeSet::foreground_starts(const std::vector<std::string>& images, const PatchGrid& grid,
                                    const ForegroundOptions& options) const {
  std::vector<std::int32_t> rows;
  for (std::int64_t volume = 0; volume < size_; ++volume) {
    const Stack& stack = stack_of(volume);
    std::vector<Tensor> chosen;
    for (const std::string& name : images) {
      const auto found = stack.images.find(name);
      CINNABAR_CHECK(found != stack.images.end(), kOp, "there is no volume '", name, "'");
      chosen.push_back(found->second.rows(volume - stack.first, 1));
    }
    const Tensor found =
        cinnabar::foreground_starts(chosen, grid_starts(spatial(volume), grid), grid.patch, options);
    const std::int32_t* row = found.data<std::int32_t>();
    for (std::int64_t n = 0; n < found.shape(0); ++n, row += 4) {
      rows.insert(rows.end(), {static_cast<std::int32_t>(volume), row[1], row[2], row[3]});
    }
  }
  return Tensor::from(rows, {static_cast<std::int64_t>(rows.size() / 4), 4});
}

}  // namespace cinnabar
