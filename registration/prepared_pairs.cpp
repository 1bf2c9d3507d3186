#include "registration/prepared_pairs.hpp"

#include <cmath>
#include <nlohmann/json.hpp>

#include "autograd/elementwise.hpp"
#include "autograd/similarity.hpp"
#include "engine/safetensors.hpp"
#include "registration/folder_settings.hpp"
#include "registration/output_file.hpp"
#include "registration/outputs.hpp"

namespace cinnabar::registration {

namespace {

using Json = nlohmann::ordered_json;

/// Returns the correlation of the images after the affine stage.
double prepare(const PairEntry& pair, const std::filesystem::path& folder, const PairsOptions& options) {
  const Image fixed = read_scan(pair.fixed), moving = read_scan(pair.moving);
  const AffineAlignment affine = align_affine(fixed, moving, nullptr, nullptr, options.affine);
  const PreparedPair made = prepare_pair(fixed, moving, nullptr, affine.fixed_to_moving, options.preparation);
  const NoGrad quiet;
  const double ncc = 1.0 - ncc_loss(Variable(made.pair.moving), Variable(made.pair.fixed)).value().item();
  save_safetensors(
      folder / (pair.name + ".safetensors"),
      {{{"moving", made.pair.moving.to(Device::cpu())}, {"target", made.pair.fixed.to(Device::cpu())}}, {}});
  const Json record{{"name", pair.name},
                    {"moving", pair.moving.string()},
                    {"moving_crc32", checksum(pair.moving)},
                    {"fixed", pair.fixed.string()},
                    {"fixed_crc32", checksum(pair.fixed)},
                    {"grid",
                     {{"extent", made.grid.extent},
                      {"spacing_mm", made.grid.spacing_mm()[0]},
                      {"voxel_to_world", made.grid.voxel_to_world}}},
                    {"fixed_to_moving", affine.fixed_to_moving},
                    {"ncc_affine", ncc}};
  write_text(folder / (pair.name + ".json"), record.dump(2) + "\n");
  return ncc;
}

}  // namespace

double head_voxels_at(double spacing_mm) {
  return std::round(kReferenceHeadMm3 / std::pow(spacing_mm, 3.0));
}

void prepare_pairs(const std::vector<PairEntry>& pairs, const std::filesystem::path& folder,
                   const PairsOptions& options, const PairsObserver& observer) {
  const PreparationOptions& preparation = options.preparation;
  claim_folder(folder, "pairs.json",
               {{"format", 1},
                {"spacing_mm", options.spacing_mm},
                {"head_voxels", preparation.head_voxels},
                {"margin_mm", preparation.margin_mm},
                {"match_histograms", preparation.match_histograms}});
  std::size_t done = 0;
  for (const PairEntry& pair : pairs) {
    ++done;
    if (observer.keep_going && !observer.keep_going()) {
      throw InterruptedRun("interrupted while preparing the pairs; the same command goes on");
    }
    if (is_recorded(pair, pair.name, folder)) continue;
    const double ncc = prepare(pair, folder, options);
    if (observer.prepared) observer.prepared(pair, done, pairs.size(), ncc);
  }
}

}  // namespace cinnabar::registration
