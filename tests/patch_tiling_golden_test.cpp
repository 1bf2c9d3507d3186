#include <gtest/gtest.h>

#include <array>

#include "autograd/patches.hpp"
#include "data/patch_grid.hpp"
#include "tests/tensors.hpp"
#include "tests/torch_cases.hpp"

// The tiling of whole scans by the original program of Quicksilver: places of the patches, which are
// background, and the momentum made of overlapping patches that follow a formula in the metadata.

namespace cinnabar::testing {
namespace {

const std::vector<TorchCase>& cases() {
  static const std::vector<TorchCase> all = torch_cases({"patch_tiling"});
  return all;
}

using Tensors = std::map<std::string, Tensor>;

/// A golden case with its volumes as [1, 1, D, H, W] and the grid its options name.
struct Tiling {
  const TorchCase& golden;
  Tensors tensors = golden.read();
  Shape spatial = tensors.at("moving").shape();
  Tensor moving = volume("moving"), target = volume("target");
  PatchGrid grid = grid_of(golden.options);
  Tensor starts = grid_starts(spatial, grid);

  static PatchGrid grid_of(const nlohmann::json& options) {
    const auto patch = options.at("patch_size").get<std::int64_t>();
    const auto step = options.at("step").get<std::int64_t>();
    return {{patch, patch, patch}, {step, step, step}};
  }
  Tensor volume(const char* name) const {
    return tensors.at(name).reshape({1, 1, spatial[0], spatial[1], spatial[2]});
  }
  Tensor chosen(const std::string& rule) const {
    return foreground_starts({moving, target}, starts, grid.patch, {.skip_first = rule == "orig"});
  }
};

/// [N, 3, d, h, w]: A[c] + sum_a B[c][a] start[a] + sum_a C[c][a] (k, j, i)[a] for "lin"; 2 moving - target /
/// 2 + (moving + target) / 8 sum_a C[c][a] (k, j, i)[a] for "img".
Tensor predicted(const Tiling& tiling, const Tensor& starts, const std::string& formula) {
  const Shape& patch = tiling.grid.patch;
  const auto cut = [&](const Tensor& volume) {
    return gather_patches(Variable(volume), starts.to(volume.device()), patch).value().to_vector<double>();
  };
  const std::vector<double> moving = cut(tiling.moving), target = cut(tiling.target);
  const std::vector<std::int32_t> rows = starts.to_vector<std::int32_t>();
  const nlohmann::json& options = tiling.golden.options;
  const auto constant = options.at("A").get<std::vector<double>>();
  const auto by_place = options.at("B").get<std::vector<std::vector<double>>>();
  const auto by_offset = options.at("C").get<std::vector<std::vector<double>>>();
  std::vector<double> values;
  for (std::int64_t n = 0; n < starts.shape(0); ++n) {
    for (std::size_t c = 0; c < 3; ++c) {
      for (std::int64_t voxel = 0; voxel < patch.numel(); ++voxel) {
        const std::array<std::int64_t, 3> offset{voxel / patch[2] / patch[1], voxel / patch[2] % patch[1],
                                                 voxel % patch[2]};
        double from_place = 0.0, from_offset = 0.0;
        for (std::size_t a = 0; a < 3; ++a) {
          from_place += by_place[c][a] * rows[static_cast<std::size_t>(4 * n + 1) + a];
          from_offset += by_offset[c][a] * static_cast<double>(offset[a]);
        }
        const auto at = static_cast<std::size_t>(n * patch.numel() + voxel);
        const double m = moving[at], t = target[at];
        values.push_back(formula == "lin" ? constant[c] + from_place + from_offset
                                          : 2 * m - 0.5 * t + (m + t) / 8 * from_offset);
      }
    }
  }
  return Tensor::from(values, {starts.shape(0), 3, patch[0], patch[1], patch[2]});
}

class PatchTilingGolden : public ::testing::TestWithParam<TorchCase> {
 protected:
  void SetUp() override {
    ASSERT_FALSE(GetParam().options.is_null()) << GetParam().file << ": " << GetParam().name;
    skip_unless_available(GetParam().device);
  }
};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(PatchTilingGolden);

TEST_P(PatchTilingGolden, PlacesAndForegroundAgree) {
  const Tiling tiling{GetParam()};
  const auto positions = tiling.tensors.at("positions").to_vector<std::int32_t>();
  const auto rows = tiling.starts.to_vector<std::int32_t>();
  ASSERT_EQ(tiling.starts.shape(0), tiling.tensors.at("positions").shape(0));
  for (std::size_t i = 0; i < positions.size(); ++i) EXPECT_EQ(rows[i / 3 * 4 + 1 + i % 3], positions[i]);
  for (const std::string rule : {"orig", "allpatches"}) {
    const auto selected = tiling.tensors.at("selected_" + rule).to_vector<std::int64_t>();  // 0 or 1 each
    ASSERT_EQ(4 * selected.size(), rows.size());
    std::vector<std::int32_t> expected;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (selected[i / 4] != 0) expected.push_back(rows[i]);
    }
    EXPECT_EQ(tiling.chosen(rule).to_vector<std::int32_t>(), expected) << rule;
  }
}

TEST_P(PatchTilingGolden, AveragedPatchesAgree) {
  const Tiling tiling{GetParam()};
  const Device device = GetParam().device;
  int compared = 0;
  for (const std::string rule : {"orig", "allpatches"}) {
    const Tensor starts = tiling.chosen(rule);
    const Tensor places = starts.to(device);
    if (tiling.tensors.contains("weight_" + rule)) {
      Tensor counts = Tensor::zeros(tiling.moving.shape(), tiling.moving.dtype(), device);
      patches_on(device).count(places, tiling.grid.patch, counts);
      EXPECT_TRUE(same_values(counts.reshape(tiling.spatial), tiling.tensors.at("weight_" + rule))) << rule;
    }
    for (const std::string formula : {"lin", "img"}) {
      const std::string name = "momentum_" + formula + "_" + rule;
      if (!tiling.tensors.contains(name)) continue;
      const Variable patches(predicted(tiling, starts, formula).to(GetParam().dtype).to(device));
      const Variable momentum = scatter_patches(patches, places, tiling.moving.shape().with(1, 3));
      const Tensor& expected = tiling.tensors.at(name);
      EXPECT_LE(relative_error(momentum.value().reshape(expected.shape()), expected),
                GetParam().tolerance(name))
          << name;
      ++compared;
    }
  }
  EXPECT_GT(compared, 0);
}

INSTANTIATE_TEST_SUITE_P(Files, PatchTilingGolden, ::testing::ValuesIn(cases()), name_of_torch_case);

TEST(PatchTilingGoldenFiles, AreThere) {
  if (cases().empty()) GTEST_SKIP() << "no golden files of patch_tiling found";
}

}  // namespace
}  // namespace cinnabar::testing
