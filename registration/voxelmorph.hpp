#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "models/voxelmorph_file.hpp"
#include "registration/pair_preparation.hpp"

namespace cinnabar::registration {

/// What a VoxelMorph network makes of a pair.
struct VelocityPrediction {
  Tensor velocity;  ///< [1, 3, D, H, W] in voxels of the registration grid, on that grid
  Flow flow;        ///< phi = exp(-v) and psi = exp(v)
};

/// A VoxelMorph network at work on prepared pairs (models/voxelmorph.hpp).
class VoxelmorphPredictor {
 public:
  /// Loads the file. Throws InputError where it is no such network.
  VoxelmorphPredictor(const std::filesystem::path& file, Device device);

  const VoxelmorphDescription& description() const { return loaded_.description; }
  const std::filesystem::path& file() const { return file_; }

  /// Bytes a prediction on a grid holds at its peak, about.
  std::size_t peak_bytes(const Shape& grid) const;

  /// `stage` is told what begins; it may throw to stop.
  VelocityPrediction predict(const ImagePair& pair,
                             const std::function<void(const std::string&)>& stage) const;

 private:
  std::filesystem::path file_;
  LoadedVoxelmorph loaded_;
};

}  // namespace cinnabar::registration
