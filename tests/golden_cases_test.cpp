// Which golden files are found, and how they are known.

#include "tests/golden_cases.hpp"

#include <gtest/gtest.h>

#include "tests/scratch_folder.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

namespace fs = std::filesystem;

/// A safetensors file of no tensors, as bytes.
std::string header_with(const nlohmann::json& metadata) {
  const std::string header = nlohmann::json{{"__metadata__", metadata}}.dump();
  std::string bytes(8, '\0');
  bytes[0] = static_cast<char>(header.size());
  return bytes + header;
}

TEST(GoldenFilesFound, OnlyAnEarlierRootShadowsAFileOfTheSamePath) {
  const ScratchFolder scratch;
  for (const char* folder : {"first/torch", "second/torch", "second/other"}) {
    fs::create_directories(scratch / folder);
    write_bytes(scratch / folder / "norms.safetensors", "");
  }
  write_bytes(scratch / "second" / "notes.txt", "");
  fs::create_directories(scratch / "second" / "folder.safetensors");
  const auto found = golden_files("", ".safetensors", {scratch / "first", scratch / "second"});
  EXPECT_EQ(found, (std::vector<fs::path>{scratch / "first" / "torch" / "norms.safetensors",
                                          scratch / "second" / "other" / "norms.safetensors"}));
}

TEST(GoldenFilesFound, LinkedFoldersAreFollowedOnceAndLoopsEnd) {
  const ScratchFolder scratch;
  fs::create_directories(scratch / "elsewhere");
  fs::create_directories(scratch / "root");
  write_bytes(scratch / "elsewhere" / "a.safetensors", "");
  fs::create_directory_symlink(scratch / "elsewhere", scratch / "root" / "link");
  fs::create_directory_symlink(scratch / "root", scratch / "root" / "loop");
  EXPECT_EQ(golden_files("", ".safetensors", {scratch / "root"}),
            (std::vector<fs::path>{scratch / "root" / "link" / "a.safetensors"}));
}

TEST(GoldenFilesFound, AMissingFolderEndsTheProgram) {
  EXPECT_EXIT(
      {
        setenv("CINNABAR_GOLDEN_DIR", "/nonexistent/golden", 1);
        golden_files("");
      },
      ::testing::ExitedWithCode(1), "names no folder: \"/nonexistent/golden\"");
}

TEST(GoldenFilesKnown, ByTheirMetadataOrDamagedOnesByTheirNames) {
  const ScratchFolder scratch;
  const auto case_of = [&](const std::string& name, const std::string& bytes) {
    write_bytes(scratch / name, bytes);
    return epdiff_case(scratch / name);
  };
  const std::string shooting = header_with({{"case", "B shooting"}, {"nx", "8"}});
  EXPECT_EQ(case_of("any.safetensors", shooting), 'B');
  EXPECT_EQ(case_of("C_epdiff.safetensors", shooting), 'B');
  EXPECT_EQ(case_of("other.safetensors", header_with({{"case", "B shooting"}})), '\0');
  EXPECT_EQ(case_of("plain.safetensors", header_with({{"alpha", "1"}})), '\0');
  const std::string cut = shooting.substr(0, shooting.size() - 1);
  EXPECT_FALSE(golden_metadata(scratch / "absent.safetensors").has_value());
  EXPECT_EQ(case_of("cut.safetensors", cut), '\0');
  EXPECT_EQ(case_of("D_epdiff.safetensors", cut), 'D');
  EXPECT_EQ(case_of("epdiff.safetensors", "short"), 'A');
}

TEST(GoldenErrors, InfinitiesMustAgreeAndDoNotHideOthers) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const Tensor expected = Tensor::from(std::vector<double>{kInfinity, 2.0, -1.0}, {3});
  const auto error_of = [&](double first, double second) {
    return relative_error(Tensor::from(std::vector<double>{first, second, -1.0}, {3}), expected);
  };
  EXPECT_EQ(error_of(kInfinity, 2.0), 0.0);
  EXPECT_EQ(error_of(kInfinity, 3.0), 0.5);
  EXPECT_EQ(error_of(-kInfinity, 2.0), kInfinity);
  EXPECT_EQ(error_of(1.0, 2.0), kInfinity);
  EXPECT_EQ(error_of(kInfinity, kInfinity), kInfinity);
}

}  // namespace
}  // namespace cinnabar::testing
