#include "engine/safetensors.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <fstream>
#include <iterator>

#include "tests/devices.hpp"
#include "tests/scratch_folder.hpp"

namespace cinnabar {
namespace {

/// A folder of its own for each test, removed afterwards.
class Folder : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(CINNABAR_BINARY_DIR) / (std::string("safetensors-") + test->name());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path path(const std::string& name = "file.safetensors") const { return folder_ / name; }

  std::filesystem::path write_raw(const std::string& bytes) const {
    std::ofstream(path(), std::ios::binary) << bytes;
    return path();
  }
  /// A file of a header text and as many data bytes.
  std::filesystem::path write_file(const std::string& header, std::size_t data_bytes) const {
    const std::uint64_t length = header.size();
    std::string bytes(sizeof(length), '\0');
    std::memcpy(bytes.data(), &length, sizeof(length));
    return write_raw(bytes + header + std::string(data_bytes, '\1'));
  }
  std::string read_raw(const std::filesystem::path& name) const {
    std::ifstream file(name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::size_t files_in_folder() const {
    return static_cast<std::size_t>(
        std::distance(std::filesystem::directory_iterator(folder_), std::filesystem::directory_iterator{}));
  }

 private:
  std::filesystem::path folder_;
};

using SafeTensorsTest = Folder;

/// Expects an InputError of one line that names the file and contains the given text.
void expect_refused(const std::filesystem::path& path, const std::string& reason) {
  try {
    load_safetensors(path);
    FAIL() << "accepted; expected: " << reason;
  } catch (const InputError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find(path.string()), std::string::npos) << text;
    EXPECT_NE(text.find(reason), std::string::npos) << text;
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
  }
}

SafeTensors example() {
  SafeTensors content;
  content.tensors["bytes"] = Tensor::from<std::uint8_t>({1, 2, 3}, {3});
  content.tensors["weights"] = Tensor::from<float>({1.5f, -2.0f, 0.0f, 4.0f, 5.0f, 6.0f}, {2, 3});
  content.tensors["doubles"] = Tensor::from<double>({0.1, -0.2}, {2, 1});
  content.tensors["scalar"] = Tensor::from<std::int64_t>({-7}, {});
  content.tensors["nothing"] = Tensor::zeros({0, 4}, DType::i32);
  content.tensors["half"] = content.tensors["weights"].to(DType::f16);
  content.tensors["brain"] = content.tensors["weights"].to(DType::bf16);
  content.metadata = {{"format", "cinnabar"}, {"note", "\"quotes\" and \u00fcmlauts"}};
  return content;
}

void expect_equal(const SafeTensors& a, const SafeTensors& b) {
  EXPECT_EQ(a.metadata, b.metadata);
  ASSERT_EQ(a.tensors.size(), b.tensors.size());
  for (const auto& [name, tensor] : a.tensors) {
    const Tensor& other = b.tensors.at(name);
    EXPECT_EQ(tensor.shape(), other.shape()) << name;
    ASSERT_EQ(tensor.dtype(), other.dtype()) << name;
    EXPECT_EQ(std::memcmp(tensor.raw(), other.raw(), tensor.bytes()), 0) << name;
  }
}

TEST_F(SafeTensorsTest, EveryDTypeAndTheMetadataSurviveTheRoundTrip) {
  save_safetensors(path(), example());
  expect_equal(load_safetensors(path()), example());
  EXPECT_EQ(files_in_folder(), 1u) << "a temporary file was left";
}

TEST_F(SafeTensorsTest, WritesThePublishedLayout) {
  SafeTensors content;
  content.tensors["a"] = Tensor::from<std::uint8_t>({9}, {1});
  content.tensors["b"] = Tensor::from<float>({1.0f}, {1});
  save_safetensors(path(), content);
  std::string header =
      R"({"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[1],"data_offsets":[4,5]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::string expected(8, '\0');
  expected[0] = static_cast<char>(header.size());
  expected += header + std::string("\x00\x00\x80\x3f\x09", 5);
  EXPECT_EQ(read_raw(path()), expected);
}

TEST_F(SafeTensorsTest, TensorsAreReadOneAtATime) {
  save_safetensors(path(), example());
  SafeTensorsFile file(path());
  EXPECT_EQ(file.names().size(), 7u);
  EXPECT_TRUE(file.contains("weights"));
  EXPECT_FALSE(file.contains("weight"));
  EXPECT_EQ(file.read("scalar").item(), -7.0);
  EXPECT_EQ(file.path(), path());
  const SafeTensorsFile moved = std::move(file);
  EXPECT_EQ(moved.read("weights").to_vector<float>()[5], 6.0f);
  EXPECT_EQ(moved.metadata().at("format"), "cinnabar");
  EXPECT_THROW(moved.read("weight"), InputError);
}

TEST_F(SafeTensorsTest, ViewsLieInTheFileOutliveItAndNeverChangeIt) {
  save_safetensors(path(), example());
  const std::string before = read_raw(path());
  const MemoryUse own = memory_use(DeviceType::cpu);
  std::map<std::string, Tensor> views;
  {
    const SafeTensorsFile file(path());
    for (const std::string& name : file.names()) views[name] = file.view(name);
    EXPECT_EQ(file.view("weights").raw(), views["weights"].raw());
    EXPECT_THROW(file.view("weight"), InputError);
  }
  EXPECT_EQ(memory_use(DeviceType::cpu).live_blocks, own.live_blocks) << "a tensor was copied";
  expect_equal({views, example().metadata}, example());
  views["weights"].fill(7.0);
  EXPECT_EQ(views["weights"].rows(1, 1).to_vector<float>(), (std::vector<float>{7, 7, 7}));
  EXPECT_EQ(read_raw(path()), before);
}

TEST_F(SafeTensorsTest, ViewsOfUnalignedDataAreCopies) {
  const SafeTensorsFile file(write_file(
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"I32","shape":[1],"data_offsets":[1,5]}})",
      5));
  EXPECT_EQ(file.view("b").item(), 0x01010101);
}

TEST_F(SafeTensorsTest, OverwritesAndKeepsTheOldFileWhenWritingFails) {
  save_safetensors(path(), example());
  SafeTensors large;
  large.tensors["zeros"] = Tensor::zeros({1 << 16});
  // A file-size limit stands for a full disk: write() fails with EFBIG half-way through.
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  rlimit limited = before;
  limited.rlim_cur = 1 << 16;
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &limited);
  EXPECT_THROW(save_safetensors(path(), large), InputError);
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, old_handler);
  expect_equal(load_safetensors(path()), example());
  EXPECT_EQ(files_in_folder(), 1u) << "a temporary file was left";
  save_safetensors(path(), large);
  EXPECT_EQ(load_safetensors(path()).tensors.at("zeros").numel(), 1 << 16);
}

TEST_F(SafeTensorsTest, RefusesWhatCannotBeWritten) {
  EXPECT_THROW(save_safetensors(path("absent/file"), example()), InputError);
  std::filesystem::create_directories(path("folder"));
  EXPECT_THROW(save_safetensors(path("folder"), example()), InputError);
  SafeTensors content;
  content.tensors["__metadata__"] = Tensor::zeros({1});
  EXPECT_THROW(save_safetensors(path(), content), InputError);
  content.tensors = {{"x", Tensor()}};
  EXPECT_THROW(save_safetensors(path(), content), Error);
  content.tensors = {{"\xff\xfe", Tensor::zeros({1})}};
  EXPECT_THROW(save_safetensors(path(), content), InputError);
  EXPECT_FALSE(std::filesystem::exists(path()));
}

TEST_F(SafeTensorsTest, RefusesMissingShortAndLyingFiles) {
  expect_refused(path("absent"), "cannot read");
  expect_refused(path("."), "not a regular file");
  expect_refused(write_raw(""), "0 bytes");
  expect_refused(write_raw("1234567"), "7 bytes");
  expect_refused(write_raw(std::string("\xff\xff\xff\xff\xff\xff\xff\xff", 8)), "header claims");
  expect_refused(write_raw(std::string("\x01\xe1\xf5\x05\x00\x00\x00\x00{}", 10)), "header claims 100000001");
  expect_refused(write_raw(std::string("\x10\x00\x00\x00\x00\x00\x00\x00{}", 10)), "ends inside the header");
  expect_refused(write_file("", 0), "begin with");
  expect_refused(write_file(" {}", 0), "begin with");
  expect_refused(write_file("[]", 0), "begin with");
}

TEST_F(SafeTensorsTest, RefusesBrokenHeaders) {
  expect_refused(write_file("{", 0), "not valid JSON");
  expect_refused(write_file("{} x", 0), "not valid JSON");
  expect_refused(write_file("{\"\xff\":1}", 0), "not valid JSON");
  expect_refused(write_file(R"({"a":1})", 0), "not an object");
  expect_refused(write_file(R"({"two\nlines":1})", 0), "not an object");
  expect_refused(write_file(R"({"a":{"dtype":"F32","shape":[1]}})", 4), "'data_offsets' is missing");
  expect_refused(write_file(R"({"a":{"shape":[1],"data_offsets":[0,4]}})", 4), "'dtype' is missing");
  expect_refused(write_file(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}})", 4),
                 "unknown keys");
  expect_refused(write_file(R"({"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}})", 4), "\"F31\"");
  expect_refused(write_file(R"({"a":{"dtype":7,"shape":[1],"data_offsets":[0,4]}})", 4), "dtype 7");
  expect_refused(write_file(R"({"a":{"dtype":"F32","shape":1,"data_offsets":[0,4]}})", 4), "not a list");
  expect_refused(write_file(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4), "non-negative");
  expect_refused(write_file(R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", 4),
                 "non-negative");
  expect_refused(write_file(R"({"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}})", 1),
                 "rank 9");
  expect_refused(write_file(R"({"__metadata__":{"a":1}})", 0), "not a string");
  expect_refused(write_file(R"({"__metadata__":["a"]})", 0), "not an object");
  expect_refused(write_file("{\"a\":" + std::string(100000, '['), 0), "nested too deeply");
  const std::string one = R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  expect_refused(write_file("{" + one + "," + one + "}", 1), "\"a\" twice");
  expect_refused(write_file(R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1),
                 "twice");
}

TEST_F(SafeTensorsTest, RefusesOverflowHolesOverlapsAndMisfits) {
  const auto u8 = [](const std::string& name, const std::string& extents, const std::string& offsets) {
    return "\"" + name + R"(":{"dtype":"U8","shape":[)" + extents + R"(],"data_offsets":[)" + offsets + "]}";
  };
  expect_refused(write_file("{" + u8("a", "5", "0,4") + "}", 4), "does not fill");
  expect_refused(write_file("{" + u8("a", "4294967296,4294967296", "0,0") + "}", 0), "64 bits");
  expect_refused(write_file("{" + u8("a", "18446744073709551615", "0,0") + "}", 0), "64 bits");
  expect_refused(write_file("{" + u8("a", "99999999999999999999", "0,0") + "}", 0), "non-negative");
  expect_refused(write_file(R"({"a":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]}})", 0),
                 "does not fill");
  expect_refused(write_file("{" + u8("a", "1", "1,0") + "}", 4), "end before they begin");
  expect_refused(write_file("{" + u8("a", "1", "0,1,2") + "}", 4), "not a pair");
  expect_refused(write_file("{" + u8("a", "4", "0,4") + "," + u8("b", "4", "2,6") + "}", 6), "overlaps");
  expect_refused(write_file("{" + u8("a", "4", "0,4") + "," + u8("b", "4", "0,4") + "}", 4), "overlaps");
  expect_refused(write_file("{" + u8("a", "2", "0,2") + "," + u8("b", "2", "3,5") + "}", 5), "hole");
  expect_refused(write_file("{" + u8("a", "2", "1,3") + "}", 3), "hole");
  expect_refused(write_file("{" + u8("a", "4", "0,4") + "}", 3), "truncated");
  expect_refused(write_file("{" + u8("a", "4", "0,4") + "}", 5), "1 bytes behind");
  expect_refused(write_file("{}", 1), "1 bytes behind");
}

TEST_F(SafeTensorsTest, AcceptsWhatTheFormatAllows) {
  EXPECT_TRUE(load_safetensors(write_file("{}", 0)).tensors.empty());
  const auto padded = load_safetensors(write_file(
      R"({ "b":{"shape":[],"dtype":"F32","data_offsets":[1,5]}, "a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}   )",
      5));
  EXPECT_EQ(padded.tensors.at("b").rank(), 0) << "data need not be aligned";
  EXPECT_EQ(padded.tensors.at("a").item(), 1.0);
}

TEST_F(SafeTensorsTest, EveryDamagedByteIsAcceptedOrRefusedCleanly) {
  save_safetensors(path(), example());
  const std::string good = read_raw(path());
  int refused = 0;
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (const char flip : {'\x01', '\x20', '\x80'}) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ flip);
      write_raw(bad);
      try {
        load_safetensors(path());
      } catch (const InputError&) {
        ++refused;
      }
    }
    write_raw(good.substr(0, at));
    EXPECT_THROW(load_safetensors(path()), InputError) << "cut to " << at << " bytes";
  }
  EXPECT_GT(refused, 100);
}

class SafeTensorsOnDevice : public testing::OnDevice {};

TEST_P(SafeTensorsOnDevice, TensorsOfAnyDeviceAreWritten) {
  const testing::ScratchFolder folder;
  const std::filesystem::path path = folder / "tensors.safetensors";
  SafeTensors content;
  content.tensors["x"] = Tensor::from<float>({1, 2, 3}, {3}).to(device());
  save_safetensors(path, content);
  EXPECT_EQ(load_safetensors(path).tensors.at("x").to_vector<float>(), (std::vector<float>{1, 2, 3}));
}

CINNABAR_ON_EACH_DEVICE(SafeTensorsOnDevice);

}  // namespace
}  // namespace cinnabar
