#include "registration/nifti.hpp"

#include <gtest/gtest.h>
#include <nifti1.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "registration/nifti_header.hpp"
#include "tests/child_process.hpp"
#include "tests/grids.hpp"
#include "tests/scratch_folder.hpp"

namespace cinnabar::registration {
namespace {

using cinnabar::testing::awkward_grid;
using cinnabar::testing::oblique_grid;
using cinnabar::testing::oracle;
using cinnabar::testing::python_with_nibabel;
using cinnabar::testing::read_bytes;
using cinnabar::testing::run_command;
using cinnabar::testing::ScratchFolder;
using cinnabar::testing::write_bytes;

constexpr VoxelType kTypes[] = {VoxelType::u8,  VoxelType::i8,  VoxelType::i16, VoxelType::u16,
                                VoxelType::i32, VoxelType::u32, VoxelType::i64, VoxelType::u64,
                                VoxelType::f32, VoxelType::f64};

/// Small whole numbers that every type holds and no flip or transposition leaves alone.
float pattern(std::int64_t x, std::int64_t y, std::int64_t z) {
  return static_cast<float>((7 * x + 13 * y + 29 * z) % 101);
}

Image pattern_image(const Geometry& geometry) {
  Image image{Tensor::empty(geometry.shape()), geometry, {}};
  float* voxel = image.voxels.data<float>();
  for (std::int64_t z = 0; z < geometry.extent[2]; ++z) {
    for (std::int64_t y = 0; y < geometry.extent[1]; ++y) {
      for (std::int64_t x = 0; x < geometry.extent[0]; ++x) *voxel++ = pattern(x, y, z);
    }
  }
  return image;
}

/// Components pattern, 2 pattern, 3 pattern in RAS.
DisplacementField pattern_field(const Geometry& geometry) {
  const std::vector<float> base = pattern_image(geometry).voxels.to_vector<float>();
  std::vector<float> vectors;
  for (int component = 1; component <= 3; ++component) {
    for (const float value : base) vectors.push_back(static_cast<float>(component) * value);
  }
  return {Tensor::from(vectors, geometry.shape(3)), geometry, {}};
}

void expect_pattern(const Image& image, const std::string& what) {
  EXPECT_EQ(image.voxels.to_vector<float>(), pattern_image(image.geometry).voxels.to_vector<float>()) << what;
}

void expect_matrix(const Matrix4& actual, const Matrix4& expected, const std::string& what) {
  for (std::size_t i = 0; i < 16; ++i) EXPECT_NEAR(actual[i], expected[i], 1e-5) << what << " entry " << i;
}

void save_matrix(const std::filesystem::path& path, const Matrix4& matrix) {
  std::ofstream file(path);
  file.precision(17);
  for (std::size_t i = 0; i < 16; ++i) file << matrix[i] << (i % 4 == 3 ? '\n' : ' ');
}

Matrix4 load_matrix(const std::filesystem::path& path) {
  std::ifstream file(path);
  Matrix4 matrix{};
  for (double& entry : matrix) file >> entry;
  EXPECT_TRUE(file.good()) << path;
  return matrix;
}

/// The message of the InputError that reading must end in; nothing may reach stderr.
template <class Read>
std::string refusal(const Read& read) {
  ::testing::internal::CaptureStderr();
  std::string message;
  try {
    read();
    ADD_FAILURE() << "was accepted";
  } catch (const InputError& error) {
    message = error.what();
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  return message;
}

void expect_refused(const std::filesystem::path& path, const std::string& reason) {
  const std::string message = refusal([&] { read_image(path); });
  EXPECT_NE(message.find(path.string()), std::string::npos) << message;
  EXPECT_NE(message.find(reason), std::string::npos) << message << " should say: " << reason;
}

/// An uncompressed file whose header is changed by `edit` before the test reads it.
template <class Edit>
std::filesystem::path edited(const ScratchFolder& folder, const Edit& edit) {
  const std::filesystem::path path = folder / "edited.nii";
  write_image(path, pattern_image(awkward_grid()), VoxelType::i16);
  std::string bytes = read_bytes(path);
  nifti_1_header header;
  std::memcpy(&header, bytes.data(), sizeof header);
  edit(header);
  std::memcpy(bytes.data(), &header, sizeof header);
  write_bytes(path, bytes);
  return path;
}

TEST(Nifti, ImagesSurviveARoundTripInEveryTypeAndEncoding) {
  const ScratchFolder folder;
  const Geometry grids[] = {awkward_grid(), axis_aligned_grid({4, 5, 6}, {1, 1, 1}),
                            oblique_grid({6, 5, 4}, {0.7, -0.7, 0.7}, {1.5, 0, 3.1}, {-90, 126, -72})};
  for (const Geometry& grid : grids) {
    for (const VoxelType type : kTypes) {
      for (const char* name : {"image.nii", "image.nii.gz"}) {
        write_image(folder / name, pattern_image(grid), type);
        const Image image = read_image(folder / name);
        expect_pattern(image, std::string(name_of(type)));
        EXPECT_EQ(image.stored, type);
        EXPECT_EQ(image.path, (folder / name).string());
        EXPECT_TRUE(same_grid(image.geometry, grid, 1e-4));
        EXPECT_NEAR(image.geometry.determinant(), grid.determinant(), 1e-5);
      }
    }
  }
  EXPECT_EQ(folder.count(), 2) << "temporary files were left behind";
}

TEST(Nifti, LabelsAreExactWhateverTheStoredType) {
  const ScratchFolder folder;
  const Geometry grid = axis_aligned_grid({2, 2, 2}, {1, 1, 1});
  const std::vector<std::int32_t> values{0, 1, 255, 256, 16777217, 2147483647, -2147483647, 7};
  const LabelImage labels{Tensor::from(values, grid.shape()), grid, {}};
  for (const VoxelType type : {VoxelType::i32, VoxelType::i64, VoxelType::f64}) {
    write_labels(folder / "labels.nii.gz", labels, type);
    EXPECT_EQ(read_labels(folder / "labels.nii.gz").labels.to_vector<std::int32_t>(), values);
  }
  write_labels(folder / "labels.nii.gz", labels);
  EXPECT_EQ(read_labels(folder / "labels.nii.gz").stored, VoxelType::i32);
  const std::string message = refusal([&] { write_labels(folder / "labels.nii.gz", labels, VoxelType::u8); });
  EXPECT_NE(message.find("does not fit in uint8"), std::string::npos) << message;
}

TEST(Nifti, FractionsAreNoLabels) {
  const ScratchFolder folder;
  Image image = pattern_image(axis_aligned_grid({3, 3, 3}, {1, 1, 1}));
  image.voxels.data<float>()[5] = 2.5f;
  write_image(folder / "image.nii", image);
  const std::string message = refusal([&] { read_labels(folder / "image.nii"); });
  EXPECT_NE(message.find("it is no label image: a voxel holds 2.5"), std::string::npos) << message;
}

TEST(Nifti, IntegersRoundAndSaturate) {
  const ScratchFolder folder;
  const Geometry grid = axis_aligned_grid({2, 2, 2}, {1, 1, 1});
  Image image{
      Tensor::from(std::vector<float>{-5, 0.4f, 0.6f, 254.5f, 255.4f, 256, 1e9f, 3}, grid.shape()), grid, {}};
  write_image(folder / "image.nii", image, VoxelType::u8);
  EXPECT_EQ(read_image(folder / "image.nii").voxels.to_vector<float>(),
            (std::vector<float>{0, 0, 1, 254, 255, 255, 255, 3}));
}

TEST(Nifti, ExtentsBeyond32767UseTheSecondVersion) {
  const ScratchFolder folder;
  const Geometry grid = axis_aligned_grid({40000, 2, 2}, {0.5, 1, 1});
  write_image(folder / "long.nii.gz", pattern_image(grid), VoxelType::u8);
  const Image image = read_image(folder / "long.nii.gz");
  expect_pattern(image, "NIfTI-2");
  EXPECT_EQ(image.geometry.extent[0], 40000);
}

TEST(Nifti, ReadsWhatNibabelWrites) {
  if (python_with_nibabel().empty()) GTEST_SKIP() << "no python3 with nibabel";
  const ScratchFolder folder;
  const auto made = run_command(
      {python_with_nibabel(), oracle("nifti_oracle.py").string(), "write", folder.path().string()});
  ASSERT_EQ(made.status, 0) << made.output;
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    const std::string name = entry.path().string();
    if (name.ends_with(".txt")) continue;
    const std::string stem = name.substr(0, name.find(".nii"));
    const Image image = read_image(entry.path());
    expect_pattern(image, name);
    expect_matrix(image.geometry.voxel_to_world, load_matrix(stem + ".txt"), name);
    ++files;
  }
  EXPECT_EQ(files, 2 * (2 * 10 + 3 * 2) + 3);
}

TEST(Nifti, NibabelReadsWhatIsWritten) {
  if (python_with_nibabel().empty()) GTEST_SKIP() << "no python3 with nibabel";
  const ScratchFolder folder;
  const auto ask = [&](const char* mode, const std::filesystem::path& path, const Geometry& grid) {
    save_matrix(folder / "matrix.txt", grid.voxel_to_world);
    const auto result = run_command({python_with_nibabel(), oracle("nifti_oracle.py").string(), mode,
                                     path.string(), (folder / "matrix.txt").string()});
    EXPECT_EQ(result.status, 0) << mode << " " << path << ": " << result.output;
  };
  for (const VoxelType type : {VoxelType::u8, VoxelType::i16, VoxelType::f32}) {
    write_image(folder / "image.nii.gz", pattern_image(awkward_grid()), type);
    ask("check", folder / "image.nii.gz", awkward_grid());
  }
  Geometry sheared = awkward_grid();
  sheared.voxel_to_world[1] += 0.6;
  write_image(folder / "sheared.nii", pattern_image(sheared));
  ask("check", folder / "sheared.nii", sheared);
  const Geometry large = axis_aligned_grid({100, 130, 90}, {1, 1, 1});  // more than one compressed chunk
  write_image(folder / "large.nii.gz", pattern_image(large));
  ask("check", folder / "large.nii.gz", large);
  write_field(folder / "field.nii.gz", pattern_field(awkward_grid()));
  ask("field", folder / "field.nii.gz", awkward_grid());
}

TEST(Nifti, FieldsSurviveARoundTrip) {
  const ScratchFolder folder;
  const DisplacementField field = pattern_field(awkward_grid());
  for (const char* name : {"field.nii", "field.nii.gz"}) {
    write_field(folder / name, field);
    const DisplacementField back = read_field(folder / name);
    EXPECT_EQ(back.vectors.to_vector<float>(), field.vectors.to_vector<float>());
    EXPECT_TRUE(same_grid(back.geometry, field.geometry, 1e-4));
  }
}

/// A field whose header the test changes: intent, name and first parameter.
DisplacementField field_with_intent(const ScratchFolder& folder, const DisplacementField& field, int code,
                                    const char* name, float parameter) {
  const std::filesystem::path path = folder / "field.nii";
  write_field(path, field);
  std::string bytes = read_bytes(path);
  nifti_1_header header;
  std::memcpy(&header, bytes.data(), sizeof header);
  header.intent_code = static_cast<short>(code);
  header.intent_p1 = parameter;
  std::strncpy(header.intent_name, name, sizeof header.intent_name - 1);
  std::memcpy(bytes.data(), &header, sizeof header);
  write_bytes(path, bytes);
  return read_field(path);
}

TEST(Nifti, FieldsOfOtherConventionsAreUnderstoodOrRefused) {
  const ScratchFolder folder;
  const DisplacementField field = pattern_field(awkward_grid());
  std::vector<float> stored = field.vectors.to_vector<float>();  // LPS in the file: x and y negated
  const auto voxels = static_cast<std::size_t>(field.geometry.voxels());
  for (std::size_t i = 0; i < 2 * voxels; ++i) stored[i] = -stored[i];
  EXPECT_EQ(field_with_intent(folder, field, 1006, "", 0).vectors.to_vector<float>(), stored);
  EXPECT_EQ(field_with_intent(folder, field, 1007, "NREG_TRANS", 1).vectors.to_vector<float>(), stored);
  const DisplacementField positions = field_with_intent(folder, field, 1007, "NREG_TRANS", 0);
  const Point world = transform_point(positions.geometry.voxel_to_world, {2, 1, 0});
  const std::size_t voxel = 2 + 9;
  for (std::size_t c = 0; c < 3; ++c) {
    EXPECT_NEAR(positions.vectors.to_vector<float>()[c * voxels + voxel] + world[c],
                stored[c * voxels + voxel], 1e-4);
  }
  const auto spline = refusal([&] { field_with_intent(folder, field, 1007, "NREG_TRANS", 5); });
  EXPECT_NE(spline.find("NiftyReg transform of kind 5"), std::string::npos) << spline;
  const auto bare = refusal([&] { field_with_intent(folder, field, 0, "", 0); });
  EXPECT_NE(bare.find("intent code is 0"), std::string::npos) << bare;
  write_image(folder / "image.nii", pattern_image(awkward_grid()));
  const auto image = refusal([&] { read_field(folder / "image.nii"); });
  EXPECT_NE(image.find("it is not a displacement field: 9 x 7 x 5"), std::string::npos) << image;
}

TEST(Nifti, UnreadableFilesAreRefusedWithTheReason) {
  const ScratchFolder folder;
  expect_refused(folder / "missing.nii", "no such file");
  expect_refused(folder.path(), "it is a folder");
  expect_refused("/dev/null", "not a regular file");
  write_bytes(folder / "empty.nii", "");
  expect_refused(folder / "empty.nii", "the file is empty");
  write_bytes(folder / "text.nii", "hello, this is no image");
  expect_refused(folder / "text.nii", "not a NIfTI file");
  write_bytes(folder / "slice.nii", std::string(128, '\0') + "DICM" + std::string(500, 'x'));
  expect_refused(folder / "slice.nii", "dcm2niix");
  write_bytes(folder / "brain.nrrd", "NRRD0004\n" + std::string(600, ' '));
  expect_refused(folder / "brain.nrrd", "it is NRRD");
  write_image(folder / "secret.nii", pattern_image(awkward_grid()));
  std::filesystem::permissions(folder / "secret.nii", std::filesystem::perms::none);
  if (::geteuid() != 0) expect_refused(folder / "secret.nii", "permission denied");
}

TEST(Nifti, TruncatedAndDamagedFilesAreRefused) {
  const ScratchFolder folder;
  for (const char* name : {"image.nii", "image.nii.gz"}) {
    write_image(folder / name, pattern_image(axis_aligned_grid({40, 40, 40}, {1, 1, 1})));
    const std::string bytes = read_bytes(folder / name);
    for (const std::size_t kept :
         {std::size_t{3}, std::size_t{60}, std::size_t{340}, bytes.size() / 2, bytes.size() - 9}) {
      if (kept >= bytes.size()) continue;
      write_bytes(folder / name, bytes.substr(0, kept));
      expect_refused(folder / name, "");
    }
  }
  write_image(folder / "flip.nii.gz", pattern_image(axis_aligned_grid({40, 40, 40}, {1, 1, 1})));
  std::string bytes = read_bytes(folder / "flip.nii.gz");
  bytes[bytes.size() - 6] = static_cast<char>(bytes[bytes.size() - 6] ^ 0x55);  // in the checksum
  write_bytes(folder / "flip.nii.gz", bytes);
  expect_refused(folder / "flip.nii.gz", "damaged");
}

TEST(Nifti, WrongShapesTypesAndHeadersAreRefused) {
  const ScratchFolder folder;
  const auto refuse = [&](const std::string& reason, const auto& edit) {
    expect_refused(edited(folder, edit), reason);
  };
  refuse("not 3-D", [](nifti_1_header& h) { h.dim[0] = 2; });
  refuse("not 3-D", [](nifti_1_header& h) { h.dim[3] = 1; });
  refuse("4-D with 5 frames", [](nifti_1_header& h) { h.dim[0] = 4, h.dim[4] = 5, h.dim[3] = 2; });
  refuse("holds vectors", [](nifti_1_header& h) { h.dim[0] = 5, h.dim[5] = 3; });
  refuse("claims 0 dimensions", [](nifti_1_header& h) { h.dim[0] = 0; });
  refuse("claims -4 voxels", [](nifti_1_header& h) { h.dim[2] = -4; });
  refuse("more than the file can hold", [](nifti_1_header& h) { h.dim[1] = h.dim[2] = h.dim[3] = 30000; });
  refuse("complex numbers", [](nifti_1_header& h) { h.datatype = DT_COMPLEX64; });
  refuse("colours", [](nifti_1_header& h) { h.datatype = DT_RGB24; });
  refuse("unknown data type 77", [](nifti_1_header& h) { h.datatype = 77; });
  refuse("no NIfTI signature", [](nifti_1_header& h) { h.magic[0] = 0; });
  refuse(".hdr/.img pair", [](nifti_1_header& h) { h.magic[1] = 'i'; });
  refuse("puts the voxels at byte -1", [](nifti_1_header& h) { h.vox_offset = -1; });
  refuse("sform is singular", [](nifti_1_header& h) { h.srow_x[0] = h.srow_x[1] = h.srow_x[2] = 0; });
  refuse("sform is singular", [](nifti_1_header& h) { h.srow_y[3] = std::nanf(""); });
  refuse("qform is singular", [](nifti_1_header& h) { h.sform_code = 0, h.pixdim[2] = 0; });
  refuse("pixdim (voxel sizes) is singular",
         [](nifti_1_header& h) { h.sform_code = h.qform_code = 0, h.pixdim[1] = 0; });
}

TEST(Nifti, HugeClaimsOfSmallCompressedFilesAreRefusedBeforeAllocating) {
  const ScratchFolder folder;
  edited(folder, [](nifti_1_header& h) { h.dim[1] = h.dim[2] = h.dim[3] = 32000; });
  const auto packed = run_command({"gzip", "-kf", (folder / "edited.nii").string()});
  if (packed.status != 0) GTEST_SKIP() << "no gzip";
  expect_refused(folder / "edited.nii.gz", "more than the file can hold");
}

TEST(Nifti, NonFiniteVoxelsAreRejectedZeroedOrKept) {
  const ScratchFolder folder;
  Image image = pattern_image(awkward_grid());
  image.voxels.data<float>()[3] = std::nanf("");
  image.voxels.data<float>()[8] = std::numeric_limits<float>::infinity();
  write_image(folder / "image.nii.gz", image);
  expect_refused(folder / "image.nii.gz", "2 voxels are NaN or infinite");
  EXPECT_EQ(read_image(folder / "image.nii.gz", NonFinite::zero).voxels.to_vector<float>()[3], 0.0f);
  EXPECT_TRUE(std::isnan(read_image(folder / "image.nii.gz", NonFinite::keep).voxels.to_vector<float>()[3]));
}

TEST(Nifti, ConstantImagesHaveNothingToRegister) {
  const Geometry grid = axis_aligned_grid({3, 3, 3}, {1, 1, 1});
  const Image flat{Tensor::full(grid.shape(), 4.0), grid, "flat.nii"};
  const std::string message = refusal([&] { require_contrast(flat); });
  EXPECT_NE(message.find("'flat.nii' has the same value (4)"), std::string::npos) << message;
  EXPECT_NO_THROW(require_contrast(pattern_image(grid)));
}

TEST(Nifti, FailedWritesLeaveNothingBehind) {
  const ScratchFolder folder;
  const Image image = pattern_image(awkward_grid());
  const auto message = refusal([&] { write_image(folder / "absent/image.nii", image); });
  EXPECT_NE(message.find("there is no folder"), std::string::npos) << message;
  EXPECT_NE(refusal([&] { write_image(folder.path(), image); }).find("it is a folder"), std::string::npos);
  EXPECT_EQ(folder.count(), 0);
  EXPECT_NE(refusal([&] { write_image("/proc/image.nii", image); }).find("cannot write '/proc/image.nii'"),
            std::string::npos);
}

TEST(Nifti, RandomlyDamagedFilesNeverCrash) {
  const ScratchFolder folder;
  const std::filesystem::path path = folder / "fuzz.nii";
  write_image(path, pattern_image(axis_aligned_grid({5, 4, 3}, {1, 2, 3})), VoxelType::i16);
  const std::string good = read_bytes(path);
  std::uint64_t state = 12345;
  const auto next = [&state] { return (state = state * 6364136223846793005u + 1442695040888963407u) >> 33; };
  int refused = 0;
  for (int round = 0; round < 1000; ++round) {
    std::string bytes = good;
    for (std::uint64_t edits = 1 + next() % 4; edits > 0; --edits) {
      bytes[next() % 352] = static_cast<char>(next() & 0xff);
    }
    write_bytes(path, bytes);
    try {
      read_image(path, NonFinite::keep);
    } catch (const InputError&) {
      ++refused;
    }
    try {
      read_field(path);
    } catch (const InputError&) {
    }
  }
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace cinnabar::registration
