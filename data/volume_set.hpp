#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "data/batch.hpp"
#include "data/patch_grid.hpp"

namespace cinnabar {

/// Volumes to train on: for each subject the same named images, say "moving", "target" and "momentum".
///
/// They come in stacks. In a stack every name has one tensor [V, C, D, H, W], f32 or u8 (labels), with the
/// same V, D, H, W and device; stacks agree in names, channels, dtypes and device but may differ in extents.
/// On disk a stack is one .safetensors file, written by save_safetensors. Subjects are numbered through all
/// stacks. Copies share the memory.
class VolumeSet {
 public:
  /// From memory. Throws Error where the stacks do not fit the above.
  explicit VolumeSet(std::vector<Batch> stacks);

  /// Files read into memory, or mapped: then only what is sampled is read, page by page, and a set may be
  /// larger than the memory. Throw InputError that names the file at fault.
  static VolumeSet load(const std::vector<std::filesystem::path>& files);
  static VolumeSet map(const std::vector<std::filesystem::path>& files);

  /// A copy on the device (the set itself where it is there already).
  VolumeSet to(Device device) const;

  std::int64_t size() const { return size_; }
  Device device() const { return stacks_.front().images.begin()->second.device(); }
  std::vector<std::string> names() const;
  /// (D, H, W) of a subject.
  Shape spatial(std::int64_t volume) const;

  /// The patches of extents (d, h, w) of every image at `starts` [N, 4] i32 on the CPU (kernels/patches.hpp),
  /// as [N, C, d, h, w] on the set's device. Voxels outside a volume are 0, subjects outside the set throw.
  Batch gather(const Tensor& starts, const Shape& patch) const;

  /// The starts, on the CPU, of all patches of the grid that are not background in the named images
  /// together (data/patch_grid.hpp). The first patch to skip is that of every subject.
  Tensor foreground_starts(const std::vector<std::string>& images, const PatchGrid& grid,
                           const ForegroundOptions& options = {}) const;

 private:
  struct Stack {
    Batch images;
    std::int64_t first = 0;  ///< number of its first subject
    std::int64_t count = 0;
  };
  const Stack& stack_of(std::int64_t volume) const;

  std::vector<Stack> stacks_;
  std::int64_t size_ = 0;
};

}  // namespace cinnabar
