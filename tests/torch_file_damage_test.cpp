// Hostile and damaged files of PyTorch.

#include <fstream>

#include "engine/safetensors.hpp"
#include "tests/golden_cases.hpp"
#include "tests/torch_pieces.hpp"

namespace cinnabar::testing {
namespace {

TEST_F(TorchFile, NothingIsExecuted) {
  for (const auto& [module, name] :
       std::vector<std::pair<std::string, std::string>>{{"os", "system"},
                                                        {"posix", "system"},
                                                        {"builtins", "eval"},
                                                        {"torch", "load"},
                                                        {"torch._utils", "_rebuild_tensor_v2.__globals__"},
                                                        {"torch", "FloatStorageX"}}) {
    expect_refused(stream_file(call(module, name, tuple({text("true")}))), module + "." + name);
    expect_refused(stream_file("N" + global(module, name) + "0"), module + "." + name);
  }
  expect_refused(stream_file(std::string("\x8c\x02os\x8c\x06system\x93")), "os.system");
  expect_refused(stream_file(text("os") + text("system") + "R"), "faulty call");
  expect_refused(stream_file(global("os\x1b[2J", "x" + std::string(1000, 'y'))), "os?[2J.xyyy");
  expect_refused(stream_file(global("torch", "FloatStorage")), "where a value should");
  expect_refused(stream_file(call("numpy", "dtype", tuple({text("f8")}))), "where a value should");
}

TEST_F(TorchFile, NestingAndSharingAreBounded) {
  std::string nested = "]";
  for (int i = 0; i < 100'000; ++i) nested += "\x85";
  expect_refused(stream_file(nested), "nested too deeply");
  // Each list holds the one before it twice: 2^60 values.
  std::string doubled = whole(1) + "q" + std::string(1, '\0');
  for (char i = 0; i < 60; ++i) doubled += std::string("](h") + i + "h" + i + "eq" + static_cast<char>(i + 1);
  expect_refused(stream_file(doubled), "too often");
  const std::string cyclic = "}q\x01" + text("self") + "h\x01s";
  expect_refused(stream_file(cyclic), "nested too deeply");
  expect_refused(stream_file("]q\x01h\x01"
                             "a"),
                 "nested too deeply");
  // One long text many times.
  std::string repeated = text(std::string(1 << 20, 'x')) + "q\x01](";
  for (int i = 0; i < 10'000; ++i) repeated += "h\x01";
  expect_refused(stream_file(repeated + "e"), "too often");
  // A list of a thousand pairs copied by a thousand OrderedDicts; lists that grow without an end.
  std::string pairs = "](";
  for (int i = 0; i < 10'000; ++i) pairs += wholes({i, i});
  pairs += "e\x85q\x01]";
  for (int i = 0; i < 1000; ++i) pairs += global("collections", "OrderedDict") + "h\x01Ra";
  expect_refused(stream_file(pairs), "too many values");
  expect_refused(stream_file("]" + std::string(3 << 20, 'N')), "too many values");
  expect_refused(stream_file(std::string(3 << 20, '(')), "too many marks");
}

TEST_F(TorchFile, RefusesDamagedPickles) {
  const auto code = [](const std::string& value) { return stream_file(value); };
  expect_refused(code("a"), "from nowhere");
  expect_refused(code("]N(a"), "from nowhere");
  expect_refused(code("t"), "lacks a mark");
  expect_refused(code("h\x05"), "never stored");
  expect_refused(code("\xff"), "unknown code 255");
  expect_refused(code("i"), "unknown code");
  expect_refused(code("X\xff\xff\xff\xff"), "truncated");
  expect_refused(code("I12x\n"), "faulty number");
  expect_refused(code("\x8a\x09" + std::string(9, 'x')), "64 bits");
  expect_refused(code("}Na"), "cannot be added to");
  expect_refused(code("}(Nu"), "without a value");
  expect_refused(code("}NNs"), "neither a string");
  expect_refused(code("]Nb"), "faulty state");
  expect_refused(code(call("collections", "OrderedDict", tuple({wholes({1})}))), "faulty OrderedDict");
  expect_refused(code(call("collections", "OrderedDict", tuple({"]Na"}))), "faulty OrderedDict");
  expect_refused(code(std::string("\x80\x05")), "protocol above 4");
  expect_refused(kMagic, "truncated");
  expect_refused(kMagic + pickled(whole(1002)), "protocol 1002");
  expect_refused(kMagic + pickled(text("1001")), "number is missing");
  expect_refused(kMagic + pickled(whole(1001)) + pickled(dict({{"little_endian", "\x89"}})), "big-endian");
}

TEST_F(TorchFile, RefusesTensorsThatDoNotFit) {
  const std::vector<std::pair<std::string, std::string>> two{{"k", stored<float>({1, 2})}};
  const std::string good = storage("FloatStorage", "k", 2);
  const auto refuse = [&](const std::string& object, const std::string& reason) {
    expect_refused(stream_file(object, two), reason);
  };
  refuse(tensor(good, 0, {3}, {1}), "outside of its storage");
  refuse(tensor(good, 2, {1}, {1}), "outside of its storage");
  refuse(tensor(good, -1, {1}, {1}), "outside of its storage");
  refuse(tensor(good, 1, {2}, {-1}), "outside of its storage");
  refuse(tensor(good, 0, {-1}, {1}), "outside of its storage");
  refuse(tensor(good, 0, {2}, {2147483647}), "outside of its storage");
  refuse(tensor(good, 0, {2147483647, 2147483647, 2147483647}, {0, 0, 0}), "outside of its storage");
  refuse(tensor(good, 0, {2147483647}, {0}), "far larger than the file");
  refuse(tensor(good, 0, {1, 1}, {1}), "rank 2 with 1 strides");
  refuse(tensor(good, 0, std::vector<std::int32_t>(9, 1), std::vector<std::int32_t>(9, 1)), "rank 9");
  refuse(tensor(storage("FloatStorage", "k", 3), 0, {1}, {1}), "length");
  refuse(tensor(storage("DoubleStorage", "k", 2), 0, {1}, {1}), "");
  refuse(tensor(storage("FloatStorage", "other", 2), 0, {1}, {1}), "");
  refuse(tensor(storage("FloatStorage", "k", 2, wholes({0, 1, 2})), 0, {2}, {1}), "part of a storage");
  refuse(tensor(storage("FloatStorage", "k", 2, wholes({0, -1, 1})), 0, {1}, {1}), "part of a storage");
  refuse(tensor(storage("FloatTensor", "k", 2), 0, {1}, {1}), "not known");
  refuse(good + tensor("N", 0, {1}, {1}) + "\x86", "");
  refuse(good, "does not hold");
  expect_refused(stream_file(tensor(good, 0, {1}, {1}), {{"k", raw<std::uint64_t>(1ull << 62)}}),
                 "truncated");
}

TEST_F(TorchFile, RefusesArchivesThatLie) {
  const std::string object = pickled(tensor(storage("ByteStorage", "0", 8), 0, {8}, {1}));
  const std::string good = zip_file({{"n/data.pkl", object}, {"n/data/0", "12345678"}});
  const std::size_t directory = good.find("PK\x01\x02"), second = good.find("PK\x01\x02", directory + 4);
  const auto with = [&](std::size_t at, const std::string& bytes) {
    return std::string(good).replace(at, bytes.size(), bytes);
  };
  EXPECT_EQ(load_tensor(good).numel(), 8);
  expect_refused(good.substr(0, good.size() - 30), "no directory");
  expect_refused(with(second + 8, "\x01"), "encrypted");
  expect_refused(with(second + 10, "\x0c"), "unknown way");
  expect_refused(with(second + 16, "\x01\x02\x03\x04"), "damaged");  // checksum
  expect_refused(with(second + 20, "\x09"), "unknown way");          // stored, but two lengths
  expect_refused(with(second + 20, std::string("\x80\0\0\0\x80\0\0\0", 8)), "truncated");
  expect_refused(with(second + 42, raw<std::uint32_t>(1)), "not where");
  expect_refused(with(second + 42, raw<std::uint32_t>(0)), "not where");
  expect_refused(with(second + 42, raw<std::uint32_t>(0xffffff00)), "");
  expect_refused(with(good.size() - 6, raw<std::uint32_t>(0xfffffff0)), "damaged");
  // A bomb: 100 MB in 100 kB. Then an entry within another.
  expect_refused(zip_file({{"n/data.pkl", object}, {"n/data/0", std::string(100 << 20, '\0'), true}}),
                 "far larger");
  const std::string inner = raw<std::uint32_t>(0x04034b50) + std::string(22, '\0') + raw<std::uint16_t>(4) +
                            raw<std::uint16_t>(0) + "b/in";
  std::string nested = zip_file({{"a", inner + "12345678"}, {"b/in", ""}});
  const std::size_t entry = nested.find("PK\x01\x02", nested.find("PK\x01\x02") + 4);
  nested.replace(entry + 20, 8, std::string("\x04\0\0\0\x04\0\0\0", 8))
      .replace(entry + 42, 4, raw<std::uint32_t>(31));
  expect_refused(nested, "overlap");
}

/// Loads a file that was damaged; only an InputError may come of it.
bool loads(const std::filesystem::path& path) {
  try {
    load_torch_file(path);
    return true;
  } catch (const InputError&) {
    return false;
  }
}

/// Cuts a file at every multiple of `cuts` bytes, then flips a bit in every `flips`-th byte.
void damage(const std::filesystem::path& path, const std::string& good, std::size_t cuts, std::size_t flips) {
  reset_peak_memory(DeviceType::cpu);
  write_bytes(path, good);
  for (std::size_t cut = (good.size() - 1) / cuts * cuts; cut > 0; cut -= cuts) {
    std::filesystem::resize_file(path, cut);
    EXPECT_FALSE(loads(path)) << "cut to " << cut;
  }
  write_bytes(path, good);
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  const auto put = [&file](std::size_t at, char byte) {
    file.seekp(static_cast<std::streamoff>(at)).put(byte).flush();
  };
  for (std::size_t at = 0; at < good.size(); at += flips) {
    put(at, static_cast<char>(good[at] ^ (1 << (at / flips % 8))));
    loads(path);
    put(at, good[at]);
  }
  EXPECT_TRUE(loads(path));
  EXPECT_LE(memory_use(DeviceType::cpu).peak_bytes, static_cast<std::int64_t>(6 * good.size() + (2 << 20)));
}

TEST_F(TorchFile, EveryDamagedByteOfSmallFilesIsLoadedOrRefused) {
  const std::string object =
      dict({{"weight", tensor(storage("FloatStorage", "0", 2), 0, {2}, {1})},
            {"more", call("collections", "OrderedDict", tuple({"](" + wholes({8, 9}) + "e"}))}});
  damage(path_, stream_file(object, {{"0", stored<float>({1, 2})}}), 1, 1);
  damage(path_, zip_file({{"n/data/0", raw(1.0f) + raw(2.0f)}, {"n/data.pkl", pickled(object), true}}), 1, 1);
}

TEST_F(TorchFile, EveryDamagedCheckpointIsLoadedOrRefused) {
  const auto checkpoints = golden_files("", ".pth.tar");
  if (checkpoints.empty()) GTEST_SKIP() << "no golden checkpoints";
  for (const auto& checkpoint : checkpoints) damage(path_, read_bytes(checkpoint), 97, 499);
}

TEST_F(TorchFile, OtherFilesAreNotTakenForOnes) {
  EXPECT_FALSE(is_torch_file(folder_ / "absent"));
  EXPECT_THROW(load_torch_file(folder_ / "absent"), InputError);
  save_safetensors(path_, {{{"x", Tensor::zeros({1})}}, {}});
  EXPECT_FALSE(is_torch_file(path_));
  expect_refused("", "begins like none");
  expect_refused(std::string(600, 'x'), "begins like none");
}

}  // namespace
}  // namespace cinnabar::testing
