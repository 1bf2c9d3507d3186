#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "registration/affine_alignment.hpp"
#include "registration/cohort.hpp"
#include "registration/pair_preparation.hpp"

namespace cinnabar::registration {

/// How pairs are brought to one grid: as `cinnabar register` does it before it deforms anything.
struct PairsOptions {
  AffineOptions affine;
  PreparationOptions preparation;
  double spacing_mm = 0.0;  ///< the grids' nominal spacing
};

struct PairsObserver {
  std::function<void(const PairEntry&, std::size_t done, std::size_t all, double ncc)> prepared;
  std::function<bool()> keep_going;
};

/// Brain volume to which a spacing refers: with the fluid inside the skull about that of an adult.
inline constexpr double kReferenceHeadMm3 = 1.4e6;
/// So many voxels it has at that spacing: PreparationOptions::head_voxels of networks.
double head_voxels_at(double spacing_mm);

/// Aligns and prepares every pair and writes NAME.safetensors with `moving` and `target` [1, 1, D, H, W],
/// f32, and then NAME.json, the record; a pair with a record of the same scans is done. pairs.json holds what
/// all share. Throws InputError where a scan cannot be used or the folder was made with other options, and
/// InterruptedRun where `keep_going` says so between two pairs.
void prepare_pairs(const std::vector<PairEntry>& pairs, const std::filesystem::path& folder,
                   const PairsOptions& options, const PairsObserver& observer);

}  // namespace cinnabar::registration
