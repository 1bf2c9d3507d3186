#include <gtest/gtest.h>

#include <algorithm>

#include "registration/nifti.hpp"
#include "registration/transform_chain.hpp"
#include "tests/grids.hpp"
#include "tests/sample_transforms.hpp"
#include "tests/scratch_folder.hpp"

namespace cinnabar::registration {
namespace {

using cinnabar::testing::awkward_grid;
using cinnabar::testing::expect_point;
using cinnabar::testing::oblique_grid;
using cinnabar::testing::read_bytes;
using cinnabar::testing::ScratchFolder;
using cinnabar::testing::smooth_image;
using cinnabar::testing::some_affine;
using cinnabar::testing::wavy_field;
using cinnabar::testing::write_bytes;

std::string refusal_of(const std::filesystem::path& path) {
  try {
    read_affine(path);
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find(path.string()), std::string::npos) << error.what();
    return error.what();
  }
  ADD_FAILURE() << path << " was accepted";
  return {};
}

TEST(Geometry, GridsCoverTheSameFieldOfView) {
  const Geometry image = awkward_grid();
  const Geometry isotropic = isotropic_grid(image, 1.1);
  for (std::size_t axis = 0; axis < 3; ++axis) {
    EXPECT_NEAR(isotropic.spacing_mm()[axis], 1.1, 1e-12);
    EXPECT_GE(static_cast<double>(isotropic.extent[axis]) * 1.1,
              static_cast<double>(image.extent[axis]) * image.spacing_mm()[axis] - 1e-3);
  }
  expect_point(isotropic.centre(), image.centre(), 1e-9);
  EXPECT_LT(isotropic.determinant(), 0.0);
  const Geometry half = shrunk(image, 2);
  EXPECT_EQ(half.extent, (std::array<std::int64_t, 3>{5, 4, 3}));
  expect_point(half.centre(), image.centre(), 1e-9);
  const Geometry stretched = resized(image, {18, 14, 10});
  expect_point(transform_point(stretched.voxel_to_world, {-0.5, -0.5, -0.5}),
               transform_point(image.voxel_to_world, {-0.5, -0.5, -0.5}), 1e-9);
  expect_point(transform_point(cropped(image, {2, 1, -1}, {3, 3, 3}).voxel_to_world, {0, 0, 1}),
               transform_point(image.voxel_to_world, {2, 1, 0}), 1e-12);
}

TEST(Geometry, EqualGridsAndOrientationsAreRecognised) {
  Geometry moved = awkward_grid();
  EXPECT_TRUE(same_grid(moved, awkward_grid()));
  moved.voxel_to_world[3] += 0.5;
  EXPECT_FALSE(same_grid(moved, awkward_grid()));
  EXPECT_EQ(axis_aligned_grid({2, 2, 2}, {-1, 1, 2}).orientation(), "LAS");
  Geometry lia;
  lia.voxel_to_world = {-1, 0, 0, 0, 0, 0, 1, 0, 0, -1, 0, 0, 0, 0, 0, 1};
  EXPECT_EQ(lia.orientation(), "LIA");
  EXPECT_EQ(describe(axis_aligned_grid({4, 5, 6}, {-1, 1, 2.5})), "4 x 5 x 6 voxels of 1 x 1 x 2.5 mm, LAS");
}

TEST(Geometry, CanonicalAxesHoldTheSameVoxelCentres) {
  Geometry lia;
  lia.extent = {4, 5, 6};
  lia.voxel_to_world = {-1, 0, 0, 7, 0, 0, 2, -3, 0, -3, 0, 4, 0, 0, 0, 1};
  const Geometry ras = canonical(lia);
  EXPECT_EQ(ras.orientation(), "RAS");
  EXPECT_EQ(ras.extent, (std::array<std::int64_t, 3>{4, 6, 5}));
  // Voxel (x, y, z) of the file is (3 - x, z, 4 - y).
  expect_point(transform_point(ras.voxel_to_world, {3, 0, 4}), transform_point(lia.voxel_to_world, {0, 0, 0}),
               1e-12);
  expect_point(transform_point(ras.voxel_to_world, {1, 5, 1}), transform_point(lia.voxel_to_world, {2, 3, 5}),
               1e-12);
  EXPECT_TRUE(same_grid(canonical(ras), ras, 0.0));
  EXPECT_EQ(canonical(awkward_grid()).orientation(), "RAS");
  expect_point(canonical(awkward_grid()).centre(), awkward_grid().centre(), 1e-9);
}

TEST(Geometry, VoxelAndWorldDisplacementsConvert) {
  const Geometry grid = awkward_grid();
  Tensor voxels = Tensor::zeros(grid.shape(3));
  for (std::int64_t i = 0; i < grid.voxels(); ++i) voxels.data<float>()[i] = 2.0f;  // two voxels along x
  const DisplacementField field = field_from_voxel_displacement(voxels, grid);
  const Point expected = transform_vector(grid.voxel_to_world, {2, 0, 0});
  for (std::size_t c = 0; c < 3; ++c) {
    EXPECT_NEAR(field.vectors.data<float>()[static_cast<std::int64_t>(c) * grid.voxels() + 7], expected[c],
                1e-5);
  }
  const Tensor back = voxel_displacement(field);
  for (std::int64_t i = 0; i < back.numel(); ++i) {
    EXPECT_NEAR(back.data<float>()[i], voxels.data<float>()[i], 1e-5);
  }
}

TEST(Affine, FilesOfEveryKindHoldTheSameMap) {
  const ScratchFolder folder;
  for (const char* name : {"a.mat", "a.tfm", "a.txt"}) {
    write_affine(folder / name, some_affine());
    const Affine back = read_affine(folder / name);
    for (std::size_t i = 0; i < 16; ++i) EXPECT_NEAR(back.matrix[i], some_affine().matrix[i], 1e-12) << name;
    if (std::string(name) != "a.txt") expect_point(back.centre, some_affine().centre, 1e-12);
  }
  EXPECT_EQ(std::filesystem::file_size(folder / "a.mat"), 193u);
  EXPECT_THROW(write_affine(folder / "a.h5", some_affine()), InputError);
}

TEST(Affine, HandMadeItkTextIsConvertedFromLps) {
  const ScratchFolder folder;
  // A quarter turn about z around (1, 2, 3) and a shift of (10, 20, 30), LPS: (2, 2, 3) -> (11, 23, 33).
  write_bytes(folder / "turn.tfm",
              "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
              "Parameters: 0 -1 0 1 0 0 0 0 1 10 20 30\nFixedParameters: 1 2 3\n");
  expect_point(transform_point(read_affine(folder / "turn.tfm").matrix, {-2, -2, 3}), {-11, -23, 33}, 1e-12);
}

TEST(Affine, BigEndianMatlabFilesAreRead) {
  const ScratchFolder folder;
  write_affine(folder / "a.mat", some_affine());
  const std::string little = read_bytes(folder / "a.mat");
  std::string big;
  for (std::size_t part : {std::size_t{0}, std::size_t{143}}) {
    const std::size_t name = part == 0 ? 27 : 6, count = part == 0 ? 12 : 3;
    std::string block = little.substr(part, 20 + name + 8 * count);
    block[0] = static_cast<char>(1000 & 0xff), block[1] = static_cast<char>(1000 >> 8);
    for (std::size_t i = 0; i < 20; i += 4)
      std::reverse(block.begin() + static_cast<long>(i), block.begin() + static_cast<long>(i + 4));
    for (std::size_t i = 20 + name; i < block.size(); i += 8) {
      std::reverse(block.begin() + static_cast<long>(i), block.begin() + static_cast<long>(i + 8));
    }
    big += block;
  }
  write_bytes(folder / "big.mat", big);
  EXPECT_EQ(read_affine(folder / "big.mat").matrix, read_affine(folder / "a.mat").matrix);
}

TEST(Affine, UnusableFilesAreRefusedWithTheReason) {
  const ScratchFolder folder;
  const auto refused = [&](const std::string& name, const std::string& bytes, const std::string& reason) {
    write_bytes(folder / name, bytes);
    const std::string message = refusal_of(folder / name);
    EXPECT_NE(message.find(reason), std::string::npos) << message << " should say: " << reason;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  };
  const std::string head = "#Insight Transform File V1.0\nTransform: ";
  EXPECT_NE(refusal_of(folder / "absent.mat").find("no such file"), std::string::npos);
  EXPECT_NE(refusal_of(folder.path()).find("not a regular file"), std::string::npos);
  refused("empty.mat", "", "neither an ITK transform");
  refused("binary.mat", std::string(193, '\0'), "neither an ITK transform");
  refused("fsl.mat", "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n", "FSL's convention");
  refused("short.txt", "1 0 0", "3 numbers, not a 4x4 matrix");
  refused("word.txt", "1 0 0 zero", "'zero' is not a number");
  refused("projective.txt", "1 0 0 0 0 1 0 0 0 0 1 0 0 0 1 1", "last row is not 0 0 0 1");
  refused("singular.txt", "1 0 0 0 0 0 0 0 0 0 1 0 0 0 0 1", "singular");
  refused("nan.txt", "nan 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1", "not finite");
  refused("spline.tfm", head + "BSplineTransform_double_3_3\nParameters: 0\nFixedParameters: 0\n",
          "is not supported");
  refused("flat.tfm", head + "AffineTransform_double_2_2\nParameters: 1 0 0 1 0 0\nFixedParameters: 0 0\n",
          "not three-dimensional");
  refused("few.tfm", head + "AffineTransform_double_3_3\nParameters: 1 0\nFixedParameters: 0 0 0\n",
          "2 parameters");
  refused("two.tfm", head + "AffineTransform_double_3_3\nTransform: AffineTransform_double_3_3\n",
          "more than one");
  write_affine(folder / "whole.mat", some_affine());
  const std::string whole = read_bytes(folder / "whole.mat");
  for (std::size_t kept = 1; kept < whole.size(); kept += 7) {
    refused("part.mat", whole.substr(0, kept), kept > 3 ? "neither" : "");
  }
}

TEST(Affine, RandomlyDamagedFilesNeverCrash) {
  const ScratchFolder folder;
  write_affine(folder / "a.mat", some_affine());
  const std::string good = read_bytes(folder / "a.mat");
  std::uint64_t state = 99;
  const auto next = [&state] { return (state = state * 6364136223846793005u + 1442695040888963407u) >> 33; };
  for (int round = 0; round < 500; ++round) {
    std::string bytes = good;
    for (std::uint64_t edits = 1 + next() % 4; edits > 0; --edits) {
      bytes[next() % bytes.size()] = static_cast<char>(next() & 0xff);
    }
    write_bytes(folder / "fuzz.mat", bytes);
    try {
      read_affine(folder / "fuzz.mat");
    } catch (const InputError&) {
    }
  }
}

TEST(TransformChain, LastGivenIsAppliedFirst) {
  const Matrix4 doubled{2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1};
  const Matrix4 shifted{1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};
  TransformChain chain;
  chain.append(doubled);
  chain.append(shifted);
  expect_point(chain.map({1, 0, 0}), {4, 0, 0}, 1e-15);  // (1 + 1) * 2
  const Geometry grid = axis_aligned_grid({3, 3, 3}, {1, 1, 1});
  TransformChain with_field;
  with_field.append(doubled);
  with_field.append(DisplacementField{Tensor::full(grid.shape(3), 1.0), grid, {}});
  expect_point(with_field.map({1, 1, 1}), {4, 4, 4}, 1e-6);
  expect_point(with_field.map({10, 1, 1}), {20, 2, 2}, 1e-6);  // outside the field: no displacement
}

TEST(TransformChain, ResamplingOntoTheSameGridChangesNothing) {
  const Image image = smooth_image(awkward_grid());
  for (const Interpolation how : {Interpolation::linear, Interpolation::nearest}) {
    const Image same = resample(image, image.geometry, {}, how);
    for (std::int64_t i = 0; i < image.geometry.voxels(); ++i) {
      ASSERT_NEAR(same.voxels.data<float>()[i], image.voxels.data<float>()[i], 1e-4);
    }
  }
}

TEST(TransformChain, PointsOutsideGetTheGivenValue) {
  const Image image = smooth_image(axis_aligned_grid({4, 4, 4}, {1, 1, 1}));
  const Geometry wide = axis_aligned_grid({8, 4, 4}, {1, 1, 1}, {-2, 0, 0});
  const Image padded = resample(image, wide, {}, Interpolation::linear, -7.0f);
  const std::vector<float> row = padded.voxels.to_vector<float>();
  EXPECT_EQ(row[0], -7.0f);
  EXPECT_EQ(row[1], -7.0f);
  EXPECT_EQ(row[2], image.voxels.data<float>()[0]);
  EXPECT_EQ(row[6], -7.0f);
}

TEST(TransformChain, LabelsAreVotedNeverMixed) {
  const Geometry grid = axis_aligned_grid({2, 2, 2}, {1, 1, 1});
  const LabelImage labels{
      Tensor::from(std::vector<std::int32_t>{10, 10, 20, 20, 30, 30, 20, 20}, grid.shape()), grid, {}};
  const auto at = [&](const Point& where) {
    const Geometry one = axis_aligned_grid({1, 1, 1}, {1, 1, 1}, where);
    return resample(labels, one, {}, LabelInterpolation::vote, -1).labels.data<std::int32_t>()[0];
  };
  EXPECT_EQ(at({0.5, 0.1, 0.1}), 10);
  EXPECT_EQ(at({0.5, 0.6, 0.4}), 20);
  EXPECT_EQ(at({0.3, 0.5, 0.5}), 20);  // 10: 1/4, 30: 1/4, 20: 1/2
  EXPECT_EQ(at({0.3, 0.0, 0.5}), 10);  // a tie of 10 and 30
  EXPECT_EQ(at({5, 0, 0}), -1);
}

TEST(TransformChain, OneFieldHoldsAWholeChain) {
  const Geometry fixed = oblique_grid({12, 10, 9}, {2, 2, 2}, {0.1, 0.2, -0.3}, {-10, 5, 3});
  TransformChain chain;
  chain.append(some_affine());
  chain.append(wavy_field(fixed, 1.5));
  TransformChain single;
  single.append(compose(chain, fixed));
  const Point voxel = transform_point(fixed.voxel_to_world, {3, 4, 5});
  expect_point(single.map(voxel), chain.map(voxel), 1e-4);
}

TEST(TransformChain, FieldsCannotBeInvertedByName) {
  const ScratchFolder folder;
  write_field(folder / "warp.nii.gz", wavy_field(awkward_grid(), 1.0));
  write_affine(folder / "a.mat", some_affine());
  TransformChain chain;
  chain.append_file(folder / "a.mat", true);
  expect_point(chain.map(transform_point(some_affine().matrix, {1, 2, 3})), {1, 2, 3}, 1e-9);
  try {
    chain.append_file(folder / "warp.nii.gz", true);
    FAIL() << "was accepted";
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("1InverseWarp.nii.gz"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace cinnabar::registration
