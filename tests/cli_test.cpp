#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "registration/nifti.hpp"
#include "registration/transform_chain.hpp"
#include "tests/child_process.hpp"
#include "tests/grids.hpp"
#include "tests/scratch_folder.hpp"

namespace cinnabar::registration {
namespace {

using cinnabar::testing::awkward_grid;
using cinnabar::testing::CommandResult;
using cinnabar::testing::kProgram;
using cinnabar::testing::read_bytes;
using cinnabar::testing::run_command;
using cinnabar::testing::run_shell;
using cinnabar::testing::ScratchFolder;
using cinnabar::testing::shell_quote;
using cinnabar::testing::write_bytes;

/// stdout and stderr together.
CommandResult cinnabar_command(std::vector<std::string> words) {
  words.insert(words.begin(), kProgram);
  return run_command(words);
}

/// Fails unless the command ends with the code and says exactly one line, on stderr, that holds `reason`.
void expect_failure(const std::vector<std::string>& words, int code, const std::string& reason) {
  std::string command = shell_quote(kProgram);
  for (const std::string& word : words) command.append(" ").append(shell_quote(word));
  const CommandResult error = run_shell(command + " 2>&1 >/dev/null");
  EXPECT_EQ(error.status, code) << error.output;
  EXPECT_TRUE(error.output.starts_with("cinnabar: ")) << error.output;
  EXPECT_EQ(error.output.find('\n'), error.output.size() - 1) << error.output;
  EXPECT_NE(error.output.find(reason), std::string::npos) << error.output << " should say: " << reason;
  EXPECT_EQ(run_shell(command + " 2>/dev/null").output, "") << "an error printed to stdout";
}

/// An image, labels, an affine and a field on the awkward grid, under well-known names.
class Cli : public ::testing::Test {
 protected:
  void SetUp() override {
    const Geometry grid = awkward_grid();
    image_ = {Tensor::empty(grid.shape()), grid, {}};
    labels_ = {Tensor::empty(grid.shape(), DType::i32), grid, {}};
    field_ = {Tensor::empty(grid.shape(3)), grid, {}};
    for (std::int64_t i = 0; i < grid.voxels(); ++i) {
      image_.voxels.data<float>()[i] = static_cast<float>(i % 17);
      labels_.labels.data<std::int32_t>()[i] = static_cast<std::int32_t>(i / 100 * 100);
    }
    for (std::int64_t i = 0; i < 3 * grid.voxels(); ++i) {
      field_.vectors.data<float>()[i] = 0.3f * std::sin(static_cast<float>(i % 29));
    }
    write_image(at("image.nii.gz"), image_, VoxelType::i16);
    write_labels(at("labels.nii.gz"), labels_);
    write_field(at("1Warp.nii.gz"), field_);
    write_affine(at("0GenericAffine.mat"),
                 {{1.1, 0.1, 0, 2, 0, 0.9, 0, -1, 0.05, 0, 1, 3, 0, 0, 0, 1}, {0, 0, 0}});
  }
  std::string at(const std::string& name) const { return (folder_ / name).string(); }

  ScratchFolder folder_;
  Image image_;
  LabelImage labels_;
  DisplacementField field_;
};

TEST_F(Cli, ApplyTakesTransformsInTheOrderOfAnts) {
  const auto result =
      cinnabar_command({"apply", "-i", at("image.nii.gz"), "-r", at("image.nii.gz"), "-t", at("1Warp.nii.gz"),
                        "-t", at("0GenericAffine.mat"), "--outside", "-5", "-o", at("out.nii.gz")});
  EXPECT_EQ(result.status, 0) << result.output;
  EXPECT_NE(result.output.find("9 x 7 x 5 voxels"), std::string::npos) << result.output;
  TransformChain chain;
  chain.append_file(at("0GenericAffine.mat"));
  chain.append_file(at("1Warp.nii.gz"));
  const Image input = read_image(at("image.nii.gz"));
  const Image expected = resample(input, input.geometry, chain, Interpolation::linear, -5.0f);
  const Image actual = read_image(at("out.nii.gz"));
  EXPECT_EQ(actual.voxels.to_vector<float>(), expected.voxels.to_vector<float>());
  EXPECT_EQ(actual.stored, VoxelType::f32);
}

TEST_F(Cli, ApplyInvertsAnAffineInAntsNotation) {
  const std::string affine = at("0GenericAffine.mat");
  const auto result =
      cinnabar_command({"apply", "-q", "-i", at("image.nii.gz"), "-r", at("image.nii.gz"), "-n",
                        "NearestNeighbor", "-t", affine, "-t", "[" + affine + ",1]", "-o", at("same.nii")});
  EXPECT_EQ(result.status, 0);
  EXPECT_EQ(result.output, "");
  EXPECT_EQ(read_image(at("same.nii")).voxels.to_vector<float>(), image_.voxels.to_vector<float>());
  EXPECT_EQ(read_image(at("same.nii")).stored, VoxelType::i16);
  expect_failure({"apply", "-i", at("image.nii.gz"), "-r", at("image.nii.gz"), "-t", "[" + affine + ",2]",
                  "-o", at("x.nii")},
                 2, "should be FILE or [FILE,1]");
}

TEST_F(Cli, ApplyKeepsLabelsWhole) {
  const auto result = cinnabar_command({"apply", "--flo", at("labels.nii.gz"), "-ref", at("labels.nii.gz"),
                                        "-n", "label", "-t", at("1Warp.nii.gz"), "-o", at("warped.nii.gz")});
  EXPECT_EQ(result.status, 0) << result.output;
  for (const std::int32_t label : read_labels(at("warped.nii.gz")).labels.to_vector<std::int32_t>()) {
    EXPECT_EQ(label % 100, 0);
  }
}

TEST_F(Cli, ApplyMapsPointsInBothConventions) {
  write_bytes(at("ras.csv"), "x,y,z,name\n1,2,3,first\n-4 , 5.5 , 6\n");
  write_bytes(at("lps.csv"), "-1;-2;3\n4\t-5.5\t6\n");
  const auto map = [&](const std::string& space, const std::string& name) {
    const auto result =
        cinnabar_command({"apply", "--points", at(name), "--points-space", space, "-t",
                          at("0GenericAffine.mat"), "-o", at(std::string("out-").append(name))});
    EXPECT_EQ(result.status, 0) << result.output;
    return read_bytes(at(std::string("out-").append(name)));
  };
  // (1.1 + 0.2 + 2, 1.8 - 1, 0.05 + 3 + 3) with the rounding of the shortest decimal form.
  const std::string ras = map("ras", "ras.csv");
  EXPECT_TRUE(ras.starts_with("x,y,z,name\n3.3")) << ras;
  EXPECT_NE(ras.find(",first\n"), std::string::npos) << ras;
  EXPECT_TRUE(map("lps", "lps.csv").starts_with("-3.3"));
  write_bytes(at("bad.csv"), "1,2,3\n1,two,3\n");
  expect_failure({"apply", "--points", at("bad.csv"), "-o", at("o.csv")}, 1,
                 "line 2 does not start with three numbers");
}

TEST_F(Cli, PointsBeginWithThreeNumbers) {
  const auto refuses = [&](const std::string& text, const std::string& reason) {
    write_bytes(at("points.csv"), text);
    expect_failure({"apply", "--points", at("points.csv"), "-o", at("o.csv")}, 1, reason);
  };
  refuses("nan,20,30\n1,2,3\n", "line 1 does not start with three numbers");
  refuses("10,20\n1,2,3\n", "line 1 does not start with three numbers");
  refuses("label,x,y,z\n1,2,3,4\n", "must be its first three columns");
  write_bytes(at("points.csv"),
              "\xEF\xBB\xBF"
              "1,2,3\n4,5,6\n");  // as Excel begins UTF-8
  ASSERT_EQ(cinnabar_command({"apply", "--points", at("points.csv"), "-o", at("o.csv")}).status, 0);
  EXPECT_EQ(read_bytes(at("o.csv")), "1,2,3\n4,5,6\n");
}

TEST_F(Cli, ScaledImagesKeepTheirValues) {
  write_image(at("scaled.nii"), image_, VoxelType::i16);
  std::string bytes = read_bytes(at("scaled.nii"));
  const float slope = 1e-3f, intercept = 0.5f;
  std::memcpy(bytes.data() + 112, &slope, 4);  // scl_slope and scl_inter
  std::memcpy(bytes.data() + 116, &intercept, 4);
  write_bytes(at("scaled.nii"), bytes);
  ASSERT_EQ(cinnabar_command({"apply", "-n", "nearest", "-i", at("scaled.nii"), "-r", at("scaled.nii"), "-o",
                              at("same.nii")})
                .status,
            0);
  const std::vector<float> found = read_image(at("same.nii")).voxels.to_vector<float>();
  for (std::size_t i = 0; i < found.size(); ++i)
    ASSERT_NEAR(found[i], 0.5f + 1e-3f * image_.voxels.data<float>()[i], 1e-6f) << i;
}

TEST_F(Cli, PipesAreNeitherWaitedForNorReplaced) {
  const std::string pipe = at("pipe.nii.gz"), image = at("image.nii.gz");
  ASSERT_EQ(run_shell("mkfifo " + shell_quote(pipe)).status, 0);
  const std::string other = "not a regular file";
  expect_failure({"apply", "--points", pipe, "-o", at("o.csv")}, 1, other);
  expect_failure({"momenta", "--pairs", pipe, "-o", at("momenta")}, 1, other);
  expect_failure({"mirror", "-i", image, "-o", at("m.nii"), "--label-names", pipe}, 1, other);
  expect_failure({"info", pipe}, 1, other);
  expect_failure({"register", "--config", pipe}, 2, other);
  expect_failure({"apply", "-i", image, "-r", image, "-o", pipe}, 1, "a device or a pipe");
  EXPECT_TRUE(std::filesystem::is_fifo(pipe));
}

TEST_F(Cli, WhatALinkLeadsToIsWritten) {
  write_bytes(at("target.nii"), "");
  std::filesystem::create_symlink("target.nii", at("link.nii"));
  const std::string image = at("image.nii.gz");
  ASSERT_EQ(
      cinnabar_command({"apply", "-n", "nearest", "-i", image, "-r", image, "-o", at("link.nii")}).status, 0);
  EXPECT_TRUE(std::filesystem::is_symlink(at("link.nii")));
  EXPECT_EQ(read_image(at("target.nii")).voxels.to_vector<float>(), image_.voxels.to_vector<float>());
  expect_failure({"apply", "-i", image, "-r", image, "-o", at("picture.png")}, 1, ".nii or .nii.gz");
}

TEST_F(Cli, ValuesOutsideMustFitTheImage) {
  const std::string labels = at("labels.nii.gz");
  for (const char* value : {"1e20", "nan", "0.5"}) {
    expect_failure(
        {"apply", "-n", "label", "-i", labels, "-r", labels, "--outside", value, "-o", at("o.nii")}, 2,
        "whole numbers");
  }
  expect_failure({"apply", "-i", labels, "-r", labels, "--outside", "1e300", "-o", at("o.nii")}, 2, "finite");
}

TEST_F(Cli, AResultThatCannotBePrintedIsAFailure) {
  const std::string image = shell_quote(at("image.nii.gz"));
  const CommandResult result =
      run_shell(shell_quote(kProgram) + " measure -f " + image + " -w " + image + " 2>&1 >/dev/full");
  EXPECT_EQ(result.status, 1);
  EXPECT_NE(result.output.find("standard output"), std::string::npos) << result.output;
}

TEST_F(Cli, JacobianWritesAndDescribesTheDeterminant) {
  const auto result = cinnabar_command({"jacobian", at("1Warp.nii.gz"), "-o", at("j.nii.gz")});
  EXPECT_EQ(result.status, 0) << result.output;
  EXPECT_NE(result.output.find("non-positive Jacobians: "), std::string::npos) << result.output;
  EXPECT_EQ(
      cinnabar_command({"jacobian", "--field", at("1Warp.nii.gz"), "--log", "-o", at("log.nii.gz")}).status,
      0);
  const std::vector<float> plain = read_image(at("j.nii.gz")).voxels.to_vector<float>();
  const std::vector<float> logarithm = read_image(at("log.nii.gz")).voxels.to_vector<float>();
  for (std::size_t i = 0; i < plain.size(); ++i) {
    EXPECT_NEAR(logarithm[i], std::log(std::max(plain[i], 1e-3f)), 1e-5);
  }
}

TEST_F(Cli, MeasurePrintsEveryMetricAsJson) {
  const auto result = cinnabar_command({"measure",
                                        "--fixed",
                                        at("image.nii.gz"),
                                        "--warped",
                                        at("image.nii.gz"),
                                        "--fixed-labels",
                                        at("labels.nii.gz"),
                                        "--warped-labels",
                                        at("labels.nii.gz"),
                                        "--ignore",
                                        "300",
                                        "--labels",
                                        "1-250",
                                        "--labels",
                                        "300",
                                        "--field",
                                        at("1Warp.nii.gz"),
                                        "--inverse",
                                        at("1Warp.nii.gz"),
                                        "--mask",
                                        at("labels.nii.gz"),
                                        "--json"});
  ASSERT_EQ(result.status, 0) << result.output;
  const auto json = nlohmann::json::parse(result.output);
  EXPECT_EQ(json["images"]["ssd"], 0.0);
  EXPECT_NEAR(json["images"]["ncc"].get<double>(), 1.0, 1e-12);
  EXPECT_EQ(json["overlap"]["mean_dice"], 1.0);
  EXPECT_EQ(json["overlap"]["labels"].size(), 2u);
  EXPECT_TRUE(json["jacobian"].contains("non_positive_share"));
  EXPECT_TRUE(json["jacobian"].contains("sd_log"));
  EXPECT_GT(json["inverse_consistency"]["mean_mm"].get<double>(), 0.0);
  const auto plain = cinnabar_command({"measure", "--field", at("1Warp.nii.gz")});
  EXPECT_NE(plain.output.find("non_positive_share"), std::string::npos) << plain.output;
}

TEST_F(Cli, MeasureRefusesHalvesAndMisfits) {
  expect_failure({"measure"}, 2, "give two images");
  expect_failure({"measure", "--fixed", at("image.nii.gz")}, 2, "go together");
  expect_failure({"measure", "--inverse", at("1Warp.nii.gz")}, 2, "--inverse needs --field");
  expect_failure({"measure", "--fixed-labels", at("labels.nii.gz"), "--warped-labels", at("labels.nii.gz"),
                  "--labels", "x"},
                 2, "neither a label nor a range");
  Image other{Tensor::zeros({1, 1, 2, 2, 2}), axis_aligned_grid({2, 2, 2}, {1, 1, 1}), {}};
  other.voxels.data<float>()[0] = 1.0f;
  write_image(at("other.nii"), other);
  expect_failure({"measure", "--fixed", at("image.nii.gz"), "--warped", at("other.nii")}, 1,
                 "different grids");
}

TEST_F(Cli, MeasureNeedsSomethingToMeasure) {
  const std::string labels = at("labels.nii.gz"), image = at("image.nii.gz");
  const std::vector<std::string> overlap{"measure", "--fixed-labels", labels, "--warped-labels", labels};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), overlap.begin(), overlap.end());
    return more;
  };
  expect_failure(with({"--labels", "99"}), 1, "no label to compare");
  expect_failure(with({"--labels", "4294967297"}), 2, "neither a label nor a range");
  write_labels(at("nothing.nii.gz"),
               {Tensor::zeros(labels_.labels.shape(), DType::i32), labels_.geometry, {}});
  expect_failure({"measure", "-f", image, "-w", image, "-x", at("nothing.nii.gz")}, 1, "0 everywhere");
}

TEST_F(Cli, ConfigFilesHoldAnyOption) {
  write_bytes(at("run.toml"), std::string("threads = 1\nimage = '") + at("image.nii.gz") +
                                  "'\n[apply]\nreference = '" + at("image.nii.gz") + "'\ntransform = ['" +
                                  at("0GenericAffine.mat") + "', '[" + at("0GenericAffine.mat") +
                                  ",1]']\noutside = -2.5\ninterpolation = 'nearest'\n" + "output = '" +
                                  at("from_config.nii") + "'\n[measure]\njson = true\n");
  const auto result = cinnabar_command({"apply", "--config", at("run.toml")});
  EXPECT_EQ(result.status, 0) << result.output;
  EXPECT_EQ(read_image(at("from_config.nii")).voxels.to_vector<float>(), image_.voxels.to_vector<float>());
  const auto won = cinnabar_command({"--config", at("run.toml"), "apply", "-o", at("typed.nii")});
  EXPECT_EQ(won.status, 0) << won.output;
  EXPECT_TRUE(std::filesystem::exists(at("typed.nii"))) << "what is typed wins";
  const auto json = cinnabar_command({"measure", "--config", at("flag.toml"), "--field", at("1Warp.nii.gz")});
  EXPECT_EQ(json.status, 1) << "there is no such file";
  write_bytes(at("flag.toml"), "[measure]\njson = true\n");
  const auto flag = cinnabar_command({"measure", "--config", at("flag.toml"), "--field", at("1Warp.nii.gz")});
  EXPECT_TRUE(flag.output.starts_with("{")) << flag.output;
  write_bytes(at("bad.toml"), "outside = = 3\n");
  expect_failure({"apply", "--config", at("bad.toml")}, 1, "line 1");
  write_bytes(at("unknown.toml"), "[apply]\nspeed = 9\n");
  expect_failure({"apply", "--config", at("unknown.toml")}, 2, "speed");
  write_bytes(at("table.toml"), "[aply]\noutside = 9\n");
  expect_failure({"apply", "--config", at("table.toml")}, 1, "[aply]");
}

TEST_F(Cli, InfoSaysWhichDeviceAutoChoosesAndWhy) {
  const auto plain = cinnabar_command({"info"});
  EXPECT_EQ(plain.status, 0) << plain.output;
  EXPECT_NE(plain.output.find("--device auto chooses"), std::string::npos) << plain.output;
  const auto json = nlohmann::json::parse(cinnabar_command({"info", "--json"}).output);
  EXPECT_FALSE(json["version"].get<std::string>().empty());
  EXPECT_FALSE(json["auto_reason"].get<std::string>().empty());
}

TEST_F(Cli, MistakesEndWithTheirCodeAndOneLine) {
  expect_failure({}, 2, "subcommand");
  expect_failure({"registre"}, 2, "registre");
  expect_failure({"apply"}, 2, "--output");
  expect_failure({"apply", "-o", at("x.nii")}, 2, "either --image or --points");
  expect_failure({"apply", "-i", at("image.nii.gz"), "-o", at("x.nii")}, 2, "--reference");
  expect_failure({"apply", "-i", at("none.nii"), "-r", at("image.nii.gz"), "-o", at("x.nii")}, 1,
                 "no such file");
  expect_failure({"apply", "-i", at("image.nii.gz"), "-r", at("image.nii.gz"), "-o", at("no/x.nii")}, 1,
                 "there is no folder");
  expect_failure(
      {"apply", "-i", at("image.nii.gz"), "-r", at("image.nii.gz"), "-n", "cubic", "-o", at("x.nii")}, 2,
      "cubic");
  expect_failure(
      {"apply", "-i", at("image.nii.gz"), "-r", at("image.nii.gz"), "--type", "float16", "-o", at("x.nii")},
      2, "float16");
  expect_failure({"apply", "-i", at("image.nii.gz"), "-r", at("image.nii.gz"), "--wrong", "-o", at("x.nii")},
                 2, "--wrong");
  expect_failure({"apply", "-i", at("image.nii.gz"), "-r", at("image.nii.gz"), "-t",
                  std::string("[") + at("1Warp.nii.gz") + ",1]", "-o", at("x.nii")},
                 1, "1InverseWarp.nii.gz");
  expect_failure({"jacobian", at("image.nii.gz")}, 1, "not a displacement field");
  expect_failure({"--threads", "-3", "info"}, 2, "--threads");
  EXPECT_EQ(cinnabar_command({"--help"}).status, 0);
  EXPECT_EQ(cinnabar_command({"apply", "--help"}).status, 0);
  EXPECT_TRUE(cinnabar_command({"--version"}).output.starts_with("cinnabar "));
}

TEST_F(Cli, AnyNumberOfThreadsWritesTheSameBytes) {
  for (const char* threads : {"1", "2", "5"}) {
    const auto result =
        cinnabar_command({"apply", "--threads", threads, "-i", at("image.nii.gz"), "-r", at("image.nii.gz"),
                          "-t", at("1Warp.nii.gz"), "-o", at(std::string("t") + threads + ".nii.gz")});
    EXPECT_EQ(result.status, 0) << result.output;
  }
  EXPECT_EQ(read_bytes(at("t1.nii.gz")), read_bytes(at("t2.nii.gz")));
  EXPECT_EQ(read_bytes(at("t1.nii.gz")), read_bytes(at("t5.nii.gz")));
}

}  // namespace
}  // namespace cinnabar::registration
