// The register command on synthetic scans whose grids, orientations and spacings differ.

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "registration/affine_alignment.hpp"
#include "registration/nifti.hpp"
#include "registration/registration.hpp"
#include "registration/transform_chain.hpp"
#include "tests/child_process.hpp"
#include "tests/scratch_folder.hpp"
#include "tests/synthetic_head.hpp"

namespace cinnabar::registration {
namespace {

using cinnabar::testing::CommandResult;
using cinnabar::testing::head;
using cinnabar::testing::kProgram;
using cinnabar::testing::read_bytes;
using cinnabar::testing::run_shell;
using cinnabar::testing::ScratchFolder;
using cinnabar::testing::shell_quote;
using cinnabar::testing::write_bytes;

Geometry fixed_grid() {
  return axis_aligned_grid({28, 32, 26}, {3, 3, 3}, {-42, -48, -39});
}

/// Left-handed, oblique, anisotropic, another field of view.
Geometry moving_grid() {
  const double c = std::cos(0.2), s = std::sin(0.2);
  Geometry grid;
  grid.extent = {34, 30, 20};
  grid.voxel_to_world = {-2.6 * c, 3.2 * s, 0, 55, 2.6 * s, 3.2 * c, 0, -56, 0, 0, 4.2, -40, 0, 0, 0, 1};
  return grid;
}

class Register : public ::testing::Test {
 protected:
  void SetUp() override {
    write_image(at("fixed.nii.gz"), head(fixed_grid(), 0, 1.0));
    write_image(at("moving.nii.gz"), head(moving_grid(), 9, 1.25));
  }
  std::string at(const std::string& name) const { return (folder_ / name).string(); }

  std::string command(const std::string& options) const {
    return shell_quote(kProgram) + " register --fixed " + shell_quote(at("fixed.nii.gz")) + " --moving " +
           shell_quote(at("moving.nii.gz")) + " --output " + shell_quote(at("out_")) + " " + options;
  }

  /// One line on stderr that names the reason, exit code 1 (or 2 for usage), and no output files.
  void expect_refused(const std::string& line, const std::string& reason, int code = 1) const {
    const CommandResult result = run_shell(line + " 2>&1 >/dev/null");
    EXPECT_EQ(result.status, code) << result.output;
    const std::size_t start = result.output.rfind("cinnabar: ");
    ASSERT_NE(start, std::string::npos) << result.output;
    EXPECT_NE(result.output.find(reason, start), std::string::npos) << result.output;
    EXPECT_EQ(outputs(), 0);
  }
  int outputs() const {
    return std::stoi(run_shell("ls -A " + shell_quote(folder_.path().string()) + " | grep -c out_").output);
  }

  ScratchFolder folder_;
};

TEST_F(Register, AlignsScansOfDifferentGridsAndWritesEverything) {
  const CommandResult result = run_shell(command("--similarity ssd --iterations 20x8 --quiet") + " 2>&1");
  ASSERT_EQ(result.status, 0) << result.output;
  for (const char* name :
       {"0GenericAffine.mat", "1Warp.nii.gz", "1InverseWarp.nii.gz", "Warped.nii.gz", "InverseWarped.nii.gz",
        "Momentum.nii.gz", "Jacobian.nii.gz", "mosaic.png", "report.html", "run.json"}) {
    EXPECT_FALSE(read_bytes(at(std::string("out_") + name)).empty()) << name;
  }
  EXPECT_EQ(outputs(), 10);

  const auto record = nlohmann::json::parse(read_bytes(at("out_run.json")));
  for (const char* key : {"version", "command", "device", "seed", "parameters", "similarity_before",
                          "similarity_after", "nonpositive_jacobian_fraction", "inverse_consistency_mm",
                          "iterations", "stop_reason", "seconds", "peak_memory_bytes"}) {
    EXPECT_TRUE(record.contains(key)) << key;
  }
  EXPECT_GT(record["similarity_after"].get<double>(), 0.99);
  EXPECT_GT(record["similarity_after"].get<double>(), record["similarity_before"].get<double>());
  EXPECT_EQ(record["nonpositive_jacobian_fraction"].get<double>(), 0.0);
  EXPECT_LT(record["inverse_consistency_mm"].get<double>(), 0.3);

  // What apply makes of the files is the warped image of the run.
  TransformChain chain;
  chain.append_file(at("out_0GenericAffine.mat"));
  chain.append_file(at("out_1Warp.nii.gz"));
  const Image again = resample(read_image(at("moving.nii.gz")), fixed_grid(), chain);
  const Image warped = read_image(at("out_Warped.nii.gz"));
  EXPECT_TRUE(same_grid(warped.geometry, fixed_grid()));
  for (std::int64_t i = 0; i < warped.voxels.numel(); ++i) {
    ASSERT_NEAR(warped.voxels.data<float>()[i], again.voxels.data<float>()[i], 1e-2) << i;
  }
}

// The default regularisation is the same in millimetres on every grid; a figure given counts in voxels.
TEST_F(Register, ScalesItsDefaultsWithTheSpacing) {
  const auto parameters = [&](const std::string& options) {
    const CommandResult result = run_shell(command(options + " --iterations 1 --affine none --quiet 2>&1"));
    EXPECT_EQ(result.status, 0) << result.output;
    return nlohmann::json::parse(read_bytes(at("out_run.json")))["parameters"];
  };
  const auto at_5 = parameters("--resolution 5"), squared = parameters("--resolution 5 --similarity ssd"),
             given = parameters("--resolution 5 --alpha 0.3 --sigma 0.5");
  EXPECT_NEAR(at_5["alpha"].get<double>(), 0.8 / 25.0, 1e-9);
  EXPECT_NEAR(at_5["beta"].get<double>(), 0.8 / 25.0, 1e-9);
  EXPECT_EQ(at_5["similarity"], "lncc");
  EXPECT_NEAR(at_5["sigma"].get<double>(), 1.0, 1e-9);
  EXPECT_NEAR(squared["sigma"].get<double>(), 0.3, 1e-9);
  EXPECT_EQ(given["alpha"].get<double>(), 0.3);
  EXPECT_EQ(given["sigma"].get<double>(), 0.5);
}

TEST_F(Register, MovesFineImagesByACoarserMomentum) {
  const CommandResult result =
      run_shell(command("--iterations 20x10 --image-factor 2 --quiet --affine none 2>&1"));
  ASSERT_EQ(result.status, 0) << result.output;
  const auto record = nlohmann::json::parse(read_bytes(at("out_run.json")));
  const DisplacementField momentum = read_field(at("out_Momentum.nii.gz"));
  EXPECT_EQ(record["parameters"]["image_factor"], 2);
  EXPECT_GT(record["similarity_after"].get<double>(), record["similarity_affine"].get<double>() + 0.01);
  for (std::size_t axis = 0; axis < 3; ++axis) {
    EXPECT_EQ(record["grid"]["extent"][axis], momentum.geometry.extent[axis]);
    EXPECT_EQ(record["levels"][1]["grid"][axis], 2 * momentum.geometry.extent[axis]);
  }
  EXPECT_NEAR(record["grid"]["spacing_mm"].get<double>(), 6.0, 1e-9);
}

TEST(RegistrationDefaults, FollowTheSpacing) {
  const auto factor = [](std::int64_t extent, double spacing) {
    return default_image_factor(axis_aligned_grid({extent, 200, 200}, {spacing, spacing, spacing}));
  };
  EXPECT_EQ(factor(200, 3.0), 1);
  EXPECT_EQ(factor(200, 2.0), 1);
  EXPECT_EQ(factor(200, 1.999999), 1);
  EXPECT_EQ(factor(200, 1.5), 2);
  EXPECT_EQ(factor(200, 1.0), 2);
  EXPECT_EQ(factor(200, 0.7), 3);
  EXPECT_EQ(factor(200, 0.05), 3);
  EXPECT_EQ(factor(33, 0.7), 2);
  EXPECT_EQ(factor(3, 0.7), 1);
  const Image fixed{{}, axis_aligned_grid({9, 9, 9}, {1.0, 1.2, 4.0}), {}, VoxelType::f32};
  EXPECT_EQ(default_image_factor(fixed, 0.8), 1);
  EXPECT_EQ(default_image_factor(fixed, 2.1), 2);
  EXPECT_EQ(default_image_factor(fixed, 6.0), 3);
  EXPECT_EQ(default_lncc_radius(3.0), 1);
  EXPECT_EQ(default_lncc_radius(2.0), 1);
  EXPECT_EQ(default_lncc_radius(1.0), 2);
  EXPECT_EQ(default_lncc_radius(0.7), 3);
  EXPECT_EQ(default_lncc_radius(0.05), 4);
}

TEST_F(Register, IsReproducible) {
  ASSERT_EQ(run_shell(command("--iterations 4 --shrink 2 --quiet")).status, 0);
  const std::string first = read_bytes(at("out_1Warp.nii.gz"));
  ASSERT_EQ(run_shell(command("--iterations 4 --shrink 2 --quiet --threads 1")).status, 0);
  EXPECT_EQ(read_bytes(at("out_1Warp.nii.gz")), first) << "the result depends on the number of threads";
}

TEST_F(Register, OneBrokenVoxelChangesLittle) {
  const auto similarity = [&] {
    const CommandResult result =
        run_shell(command("--iterations 4 --shrink 2 --similarity ssd --quiet") + " 2>&1");
    EXPECT_EQ(result.status, 0) << result.output;
    return nlohmann::json::parse(read_bytes(at("out_run.json")))["similarity_after"].get<double>();
  };
  const double before = similarity();
  Image broken = read_image(at("moving.nii.gz"));
  broken.voxels.data<float>()[broken.voxels.numel() / 2] = 1e30f;
  write_image(at("moving.nii.gz"), broken);
  EXPECT_NEAR(similarity(), before, 0.01);
}

TEST(Outliers, AreClippedAndNothingElse) {
  Image image{
      Tensor::zeros({1, 1, 10, 10, 100}), axis_aligned_grid({100, 10, 10}, {1, 1, 1}), {}, VoxelType::f32};
  float* value = image.voxels.data<float>();
  for (std::int64_t i = 0; i < 10000; ++i) value[i] = static_cast<float>(i % 100);
  EXPECT_EQ(without_outliers(image).voxels.data<float>(), value) << "copied for nothing";
  value[5] = 1e30f;
  value[6] = -1e30f;
  value[7] = 1000.0f;  // bright, but not that bright
  const Image clipped = without_outliers(image);
  EXPECT_EQ(clipped.voxels.data<float>()[5], 99.0f + 990.0f);
  EXPECT_EQ(clipped.voxels.data<float>()[6], -990.0f);
  for (std::int64_t i = 7; i < 10000; ++i) ASSERT_EQ(clipped.voxels.data<float>()[i], value[i]);
}

TEST_F(Register, TakesEverySimilarityAndAMask) {
  Image mask = head(fixed_grid(), 0, 1.0);
  for (std::int64_t i = 0; i < mask.voxels.numel(); ++i) {
    mask.voxels.data<float>()[i] = mask.voxels.data<float>()[i] > 5 ? 1.0f : 0.0f;
  }
  write_image(at("mask.nii.gz"), mask);
  for (const char* similarity : {"ssd", "ncc", "lncc"}) {
    const CommandResult result =
        run_shell(command("--iterations 6 --shrink 2 --quiet --fixed-mask " + shell_quote(at("mask.nii.gz")) +
                          " --similarity " + similarity) +
                  " 2>&1");
    ASSERT_EQ(result.status, 0) << similarity << ": " << result.output;
    const auto record = nlohmann::json::parse(read_bytes(at("out_run.json")));
    EXPECT_GT(record["similarity_after"].get<double>(), record["similarity_affine"].get<double>())
        << similarity;
  }
}

TEST_F(Register, StopsCleanlyOnInterrupt) {
  const CommandResult result =
      run_shell("timeout --preserve-status --signal INT 1 " +
                command("--iterations 5000 --relative-decrease 0 --no-crop") + " 2>&1");
  EXPECT_EQ(result.status, 130) << result.output;
  EXPECT_NE(result.output.find("interrupted"), std::string::npos) << result.output;
  EXPECT_EQ(outputs(), 0);
}

TEST_F(Register, DryRunPrintsThePlanAndWritesNothing) {
  const CommandResult result = run_shell(command("--dry-run") + " 2>&1");
  EXPECT_EQ(result.status, 0) << result.output;
  EXPECT_NE(result.output.find("MiB"), std::string::npos) << result.output;
  EXPECT_EQ(outputs(), 0);
}

TEST_F(Register, RefusesBadInputInOneLine) {
  const std::string moving = shell_quote(at("moving.nii.gz"));
  const auto with_fixed = [&](const std::string& name) {
    return shell_quote(kProgram) + " register -f " + shell_quote(at(name)) + " -m " + moving + " -o " +
           shell_quote(at("out_"));
  };
  expect_refused(with_fixed("absent.nii.gz"), "absent.nii.gz");
  write_bytes(at("text.nii"), "this is not an image");
  expect_refused(with_fixed("text.nii"), "text.nii");
  write_bytes(at("cut.nii.gz"), read_bytes(at("fixed.nii.gz")).substr(0, 3000));
  expect_refused(with_fixed("cut.nii.gz"), "cut.nii.gz");
  Image flat = head(fixed_grid(), 0, 1.0);
  flat.voxels.fill(7.0);
  write_image(at("flat.nii.gz"), flat);
  expect_refused(with_fixed("flat.nii.gz"), "flat.nii.gz");
  expect_refused(command("--fixed-mask " + moving), "moving.nii.gz");
  expect_refused(command("--initial-transform " + moving), "moving.nii.gz");
  expect_refused(command("--iterations 10xten"), "--iterations");
  expect_refused(command("--shrink 2x1x1x1"), "--shrink");
  expect_refused(command("--device cuda:99"), "cuda:99");
  expect_refused(command("--device gpu"), "gpu");
  expect_refused(command("--sigma -1"), "--sigma", 2);
  expect_refused(command("--sigma nan"), "--sigma", 2);
  expect_refused(command("--lncc-radius 9"), "--lncc-radius", 2);
  expect_refused(command("--iterations 1.5"), "whole numbers");
  expect_refused(command("--iterations 9x9x9x9x9x9x9x9x9"), "more than 8 levels");
  expect_refused(command("--resolution 1000"), "finer --resolution");
  expect_refused(command("--resolution 0.001"), "coarser --resolution");
  expect_refused(shell_quote(kProgram) + " register -f " + moving + " -m " + moving + " -o " +
                     shell_quote(at("no/such/folder/out_")),
                 "no/such/folder");
}

TEST_F(Register, AFullDiskLeavesNothingHalfWritten) {
  // A file-size limit stands in for a full disk: writes beyond it fail (SIGXFSZ ignored).
  const CommandResult result =
      run_shell("trap '' XFSZ; ulimit -f 8; " + command("--iterations 2 --shrink 2 --quiet") + " 2>&1");
  EXPECT_EQ(result.status, 1) << result.output;
  EXPECT_NE(result.output.find("out_"), std::string::npos) << result.output;
  EXPECT_EQ(run_shell("ls -A " + shell_quote(folder_.path().string()) +
                      " | grep -v '^\\(out_0GenericAffine.mat\\|"
                      "fixed.nii.gz\\|moving.nii.gz\\)$'")
                .output,
            "");
}

TEST(AffineAlignment, FindsAKnownRigidMotion) {
  const Image fixed = head(fixed_grid(), 0, 1.0);
  const double angle = 0.15, c = std::cos(angle), s = std::sin(angle);
  const Matrix4 motion{c, -s, 0, 6, s, c, 0, -4, 0, 0, 1, 3, 0, 0, 0, 1};
  Image moving = fixed;
  moving.geometry.voxel_to_world = multiply(motion, fixed.geometry.voxel_to_world);
  AffineOptions options;
  options.model = AffineModel::rigid;
  const AffineAlignment found = align_affine(fixed, moving, nullptr, nullptr, options);
  EXPECT_GT(found.ncc_after, 0.995);
  for (const Point& p : {Point{20, 0, 0}, Point{0, 25, 0}, Point{0, 0, -20}}) {
    const Point a = transform_point(found.fixed_to_moving, p), b = transform_point(motion, p);
    EXPECT_LT(std::hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]), 1.0);
  }
  EXPECT_NEAR(determinant(found.fixed_to_moving), 1.0, 1e-3);
}

TEST(RegistrationMemory, IsRefusedWithAdviceWhereItDoesNotFit) {
  // A grid of 2000^3 voxels: refused before anything of that size is allocated.
  Image fixed = head(fixed_grid(), 0, 1.0);
  RegistrationOptions options;
  options.preparation.resolution_mm = 0.045;
  const Shape grid = registration_grid(fixed, options.preparation).shape();
  EXPECT_GT(estimated_peak_bytes(grid, options), std::size_t{1} << 40);
  EXPECT_THROW(require_memory(grid, options), InputError);
}

TEST(RegistrationMemory, IsForetold) {
  for (const int factor : {1, 2, 3}) {
    RegistrationOptions options;
    options.image_factor = factor;
    options.lbfgs.history = 0;  // no optimiser here
    const Shape momentum{1, 3, 24, 24, 24}, images{1, 1, 24 * factor, 24 * factor, 24 * factor};
    const ImagePair pair{Tensor::zeros(images), Tensor::zeros(images)};
    const std::int64_t before = memory_use(DeviceType::cpu).live_bytes;
    reset_peak_memory(DeviceType::cpu);
    evaluate_matching(pair, Tensor::zeros(momentum), options.matching).gradient();
    const auto used = static_cast<double>(memory_use(DeviceType::cpu).peak_bytes - before);
    const auto foretold = static_cast<double>(estimated_peak_bytes(momentum, options));
    EXPECT_LT(used, foretold) << factor;
    EXPECT_GT(used, 0.5 * foretold) << factor;
  }
}

TEST(Selftest, PassesOnTheCpu) {
  const auto result = cinnabar::testing::run_command({kProgram, "selftest", "--device", "cpu"});
  EXPECT_EQ(result.status, 0) << result.output;
}

}  // namespace
}  // namespace cinnabar::registration
