#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "engine/safetensors.hpp"
#include "models/voxelmorph.hpp"

namespace cinnabar {

/// All that a file says of a VoxelMorph network beside its weights.
struct VoxelmorphDescription {
  VoxelmorphOptions network;
  VoxelmorphLoss loss;       ///< that it was trained with
  double spacing_mm = 0.0;   ///< nominal spacing of its grids; 0: unknown
  double head_voxels = 0.0;  ///< foreground of the fixed image on its grid, which sets the spacing; 0: unset
  std::map<std::string, std::string> notes;  ///< how it was trained, where it comes from: for people
};

/// Writes a network as safetensors, f32, with the description in its metadata, entry "voxelmorph"; the
/// network's own options are the ones that are stored, without seed. Never leaves a half-written file. Throws
/// InputError where that fails or weights are not finite.
void save_voxelmorph(const std::filesystem::path& path, const Voxelmorph& network,
                     const VoxelmorphDescription& description);

struct LoadedVoxelmorph {
  std::unique_ptr<Voxelmorph> network;  ///< f32, on the CPU
  VoxelmorphDescription description;
};

/// Reads such a file. Throws InputError naming the file and the remedy, before it takes more memory than the
/// file has bytes where the two do not fit.
LoadedVoxelmorph load_voxelmorph(const std::filesystem::path& path);

/// Whether the file is a safetensors file that says it holds such a network. False for what cannot be read.
bool is_voxelmorph_file(const std::filesystem::path& path);

}  // namespace cinnabar
