#include "registration/voxelmorph.hpp"

namespace cinnabar::registration {

namespace {

/// Numbers a voxel alive at the peak: what the finest levels hold, and the fields of the integration at the
/// images' resolution.
constexpr std::size_t kActivations = 4;  // times the features of a level
constexpr std::size_t kFields = 6;

}  // namespace

VoxelmorphPredictor::VoxelmorphPredictor(const std::filesystem::path& file, Device device)
    : file_(file), loaded_(load_voxelmorph(file)) {
  loaded_.network->eval();
  loaded_.network->to(device);
}

std::size_t VoxelmorphPredictor::peak_bytes(const Shape& grid) const {
  const VoxelmorphOptions& network = loaded_.description.network;
  const auto voxels = static_cast<std::size_t>(grid[2] * grid[3] * grid[4]);
  const auto features = static_cast<std::size_t>(network.features);
  const std::size_t images = network.symmetric ? 2 : 1;
  return sizeof(float) * voxels * (images * kActivations * features + 3 * kFields);
}

VelocityPrediction VoxelmorphPredictor::predict(const ImagePair& pair,
                                                const std::function<void(const std::string&)>& stage) const {
  const NoGrad quiet;
  const Shape& shape = pair.fixed.shape();
  const Shape spatial{shape[2], shape[3], shape[4]};
  if (stage) stage("prediction");
  const Variable velocity = loaded_.network->velocity(Variable(pair.moving), Variable(pair.fixed));
  if (stage) stage("integration");
  VelocityPrediction result;
  result.velocity = velocity_at(velocity, spatial).value();
  result.flow = velocity_flow(velocity, spatial, loaded_.description.network.squarings);
  return result;
}

}  // namespace cinnabar::registration
