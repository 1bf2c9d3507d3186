#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "engine/safetensors.hpp"
#include "models/lddmm_matching.hpp"
#include "models/quicksilver.hpp"

namespace cinnabar {

/// How momenta were made, and so how a predicted one is to be shot.
struct MomentumModel {
  FluidOperator fluid;          ///< L of the metric, in voxels of the grid
  double sigma = 0.0;           ///< of the data term; 0: unknown
  int time_steps = 10;          ///< of the geodesic
  int inverse_iterations = 20;  ///< of each inverse update, at most
  double spacing_mm = 0.0;      ///< nominal spacing of the grid; 0: unknown
  double head_voxels = 0.0;  ///< foreground of the fixed image on its grid, which sets the spacing; 0: unset
  Similarity similarity = Similarity::ssd;  ///< of the data term
  int lncc_radius = 1;                      ///< half width of LNCC's windows

  ShootingOptions shooting() const { return {fluid, time_steps, inverse_iterations}; }
  /// The energy that the momenta minimise.
  MatchingOptions matching() const;
};

/// As the object "model" of momenta.json. Reading throws InputError that names the faulty entry.
nlohmann::json to_json(const MomentumModel& model);
MomentumModel momentum_model_from_json(const nlohmann::json& object);

enum class QuicksilverRole {
  prediction,  ///< from (moving, fixed) to the momentum
  correction,  ///< from (moving, fixed pulled back by a prediction) to what that prediction lacks
};

/// "prediction" or "correction".
std::string name_of(QuicksilverRole role);

/// All that a file says of a network beside its weights.
struct QuicksilverDescription {
  QuicksilverOptions network;
  QuicksilverRole role = QuicksilverRole::prediction;
  MomentumModel momenta;
  std::map<std::string, std::string> notes;  ///< how it was trained, where it comes from: for people
};

/// Writes a network as safetensors with the description in its metadata, entry "quicksilver"; the network's
/// own options are the ones that are stored, without seed and precision. Never leaves a half-written file.
/// Throws InputError where that fails or the weights do not fit `storage` (f32, f16 or bf16).
void save_quicksilver(const std::filesystem::path& path, const Quicksilver& network,
                      const QuicksilverDescription& description, DType storage = DType::f32);

struct LoadedQuicksilver {
  std::unique_ptr<Quicksilver> network;  ///< f32, on the CPU
  QuicksilverDescription description;
};

/// Reads such a file, or the .pth.tar file of the original program (models/quicksilver_import.hpp), told
/// apart by content. A safetensors file without a description but with the original's tensors is taken for a
/// prediction network of patches of 15^3 made with the original's settings. `seed` is that of the dropout
/// masks; `precision`, in which the network is to compute, is no part of a file either. Throws InputError
/// naming the file and the remedy.
LoadedQuicksilver load_quicksilver(const std::filesystem::path& path, std::uint64_t seed = 0,
                                   Conv3dPrecision precision = Conv3dPrecision::fp32);

/// Beyond these a number of a file is damaged.
inline constexpr std::int64_t kMaxQuicksilverFeatures = 1 << 20;
inline constexpr std::int64_t kMaxQuicksilverPatch = 1024;

/// The features F of a network with these weights, from two of their shapes. One of the two holds a third of
/// all weights, so a network with F features takes little more memory than they. Throws InputError.
std::int64_t quicksilver_features(const SafeTensors& weights);

}  // namespace cinnabar
