#include <gtest/gtest.h>

#include <cmath>
#include <sstream>
#include <string>
#include <vector>

#include "registration/nifti.hpp"
#include "registration/transform_chain.hpp"
#include "tests/child_process.hpp"
#include "tests/grids.hpp"
#include "tests/sample_transforms.hpp"
#include "tests/scratch_folder.hpp"

namespace cinnabar::registration {
namespace {

using cinnabar::testing::awkward_grid;
using cinnabar::testing::expect_point;
using cinnabar::testing::oblique_grid;
using cinnabar::testing::run_command;
using cinnabar::testing::run_shell;
using cinnabar::testing::ScratchFolder;
using cinnabar::testing::shell_quote;
using cinnabar::testing::smooth_image;
using cinnabar::testing::some_affine;
using cinnabar::testing::wavy_field;

#ifdef CINNABAR_ITK_ORACLE
const std::string kItkOracle = CINNABAR_ITK_ORACLE;
#else
const std::string kItkOracle;
#endif
#define REQUIRE_ITK() \
  if (kItkOracle.empty()) GTEST_SKIP() << "built without ITK 5"

/// Points mapped by ITK through the files, given and returned in RAS.
std::vector<Point> map_with_itk(const std::vector<std::filesystem::path>& files,
                                const std::vector<Point>& points) {
  std::ostringstream input;
  input.precision(17);
  for (const Point& p : points) input << -p[0] << ' ' << -p[1] << ' ' << p[2] << '\n';
  std::string command =
      std::string("printf %s ") + shell_quote(input.str()) + " | " + shell_quote(kItkOracle) + " points";
  for (const auto& file : files) command.append(" ").append(shell_quote(file.string()));
  const auto result = run_shell(command + " 2>&1");
  EXPECT_EQ(result.status, 0) << result.output;
  std::istringstream output(result.output);
  std::vector<Point> mapped;
  for (double x, y, z; output >> x >> y >> z;) mapped.push_back({-x, -y, z});
  EXPECT_EQ(mapped.size(), points.size()) << result.output;
  return mapped;
}

TEST(Itk, MapsPointsAsWrittenAffinesDo) {
  REQUIRE_ITK();
  const ScratchFolder folder;
  const std::vector<Point> points{{0, 0, 0}, {50, -20, 30}, {-7.5, 80, -60}};
  for (const char* name : {"a.mat", "a.tfm"}) {
    write_affine(folder / name, some_affine());
    const std::vector<Point> mapped = map_with_itk({folder / name}, points);
    ASSERT_EQ(mapped.size(), points.size());
    for (std::size_t i = 0; i < points.size(); ++i) {
      expect_point(mapped[i], transform_point(some_affine().matrix, points[i]), 1e-9);
    }
  }
}

TEST(Itk, AffinesOfEveryClassAreReadAsItkAppliesThem) {
  REQUIRE_ITK();
  const ScratchFolder folder;
  const std::vector<Point> points{{0, 0, 0}, {50, -20, 30}, {-7.5, 80, -60}};
  const std::vector<std::vector<std::string>> cases{
      {"affine", "0.9", "0.1", "0", "-0.2", "1.1", "0.05", "0.03", "0", "0.95", "4", "-5", "6", "10", "20",
       "30"},
      {"euler", "0.3", "-0.2", "0.5", "4", "-5", "6", "10", "20", "30"},
      {"euler_zyx", "0.3", "-0.2", "0.5", "4", "-5", "6", "10", "20", "30"},
      {"versor", "0.3", "-0.2", "0.5", "4", "-5", "6", "10", "20", "30"},
      {"similarity", "0.3", "-0.2", "0.5", "4", "-5", "6", "1.2", "10", "20", "30"},
      {"translation", "4", "-5", "6"}};
  for (const auto& one : cases) {
    for (const char* name : {"t.mat", "t.tfm"}) {
      std::vector<std::string> words{kItkOracle, "affine", (folder / name).string()};
      words.insert(words.end(), one.begin(), one.end());
      const auto made = run_command(words);
      ASSERT_EQ(made.status, 0) << made.output;
      const std::vector<Point> mapped = map_with_itk({folder / name}, points);
      ASSERT_EQ(mapped.size(), points.size());
      const Affine affine = read_affine(folder / name);
      for (std::size_t i = 0; i < points.size(); ++i) {
        SCOPED_TRACE(one[0] + " in " + name);
        expect_point(transform_point(affine.matrix, points[i]), mapped[i], 1e-9);
      }
    }
  }
}

struct WarpCase {
  const char* name;
  Geometry fixed;
  Geometry moving;
};

/// The grid moved so that its centre lies at the world's origin.
Geometry centred(Geometry grid) {
  const Point centre = grid.centre();
  for (std::size_t row = 0; row < 3; ++row) grid.voxel_to_world[row * 4 + 3] -= centre[row];
  return grid;
}

std::vector<WarpCase> warp_cases() {
  const Geometry straight = centred(axis_aligned_grid({20, 18, 16}, {1, 1, 1}));
  const Geometry turned = centred(oblique_grid({22, 19, 15}, {0.9, -1.3, 1.1}, {-0.2, 0.5, 0.1}, {0, 0, 0}));
  return {
      {"straight", straight, straight},
      {"anisotropic", centred(axis_aligned_grid({20, 18, 8}, {1.1, 0.9, 2.4})), straight},
      {"oblique", centred(oblique_grid({20, 18, 16}, {1.2, 1.2, 1.2}, {0.3, -0.4, 0.7}, {0, 0, 0})), turned},
      {"left-handed", centred(axis_aligned_grid({20, 18, 16}, {-1, 1, 1})), turned},
      {"all at once", centred(oblique_grid({18, 17, 9}, {-1.2, 0.9, 2.4}, {0.3, -0.4, 0.7}, {0, 0, 0})),
       turned}};
}

TEST(Itk, WarpsAsTheChainDoesOnEveryKindOfGrid) {
  REQUIRE_ITK();
  const ScratchFolder folder;
  for (const WarpCase& one : warp_cases()) {
    SCOPED_TRACE(one.name);
    write_image(folder / "fixed.nii", smooth_image(one.fixed));
    write_image(folder / "moving.nii", smooth_image(one.moving));
    Affine affine = some_affine();
    affine.matrix[3] = 0.7, affine.matrix[7] = -1.1, affine.matrix[11] = 0.4;
    write_affine(folder / "0GenericAffine.mat", affine);
    write_field(folder / "1Warp.nii.gz", wavy_field(one.fixed, 1.5));
    for (const std::string how : {"linear", "nearest"}) {
      const auto made =
          run_command({kItkOracle, "warp", (folder / "moving.nii").string(), (folder / "fixed.nii").string(),
                       (folder / "itk.nii").string(), how, (folder / "0GenericAffine.mat").string(),
                       (folder / "1Warp.nii.gz").string()});
      ASSERT_EQ(made.status, 0) << made.output;
      TransformChain chain;
      chain.append_file(folder / "0GenericAffine.mat");
      chain.append_file(folder / "1Warp.nii.gz");
      const Image ours =
          resample(read_image(folder / "moving.nii"), read_geometry(folder / "fixed.nii"), chain,
                   how == "linear" ? Interpolation::linear : Interpolation::nearest, -1.0f);
      const Image theirs = read_image(folder / "itk.nii");
      EXPECT_TRUE(same_grid(theirs.geometry, one.fixed));
      std::int64_t inside = 0, differing = 0;
      for (std::int64_t i = 0; i < one.fixed.voxels(); ++i) {
        const float a = ours.voxels.data<float>()[i], b = theirs.voxels.data<float>()[i];
        if (b != -1.0f) ++inside;
        if (!(std::abs(a - b) < 1e-4f * 100.0f)) ++differing;  // of the range 0..100
      }
      EXPECT_GT(inside, one.fixed.voxels() / 4);
      // A point within rounding of a boundary between voxels, or of the edge, may fall on either side.
      EXPECT_LE(differing, how == "linear" ? 2 : one.fixed.voxels() / 1000);
    }
  }
}

TEST(Itk, FieldsWrittenByItkAreRead) {
  REQUIRE_ITK();
  const ScratchFolder folder;
  write_image(folder / "fixed.nii", smooth_image(awkward_grid()));
  const auto made =
      run_command({kItkOracle, "field", (folder / "fixed.nii").string(), (folder / "f.nii.gz").string()});
  ASSERT_EQ(made.status, 0) << made.output;
  const DisplacementField field = read_field(folder / "f.nii.gz");
  EXPECT_TRUE(same_grid(field.geometry, awkward_grid()));
  const std::int64_t voxels = field.geometry.voxels(), index = 3 + 9 * (2 + 7 * 1);
  EXPECT_EQ(field.vectors.data<float>()[index], -123.0f);
  EXPECT_EQ(field.vectors.data<float>()[voxels + index], -123.25f);
  EXPECT_EQ(field.vectors.data<float>()[2 * voxels + index], 123.5f);
}

}  // namespace
}  // namespace cinnabar::registration
