#include "engine/torch_file.hpp"

#include <gtest/gtest.h>
#include <zlib.h>

#include <cstring>
#include <fstream>

#include "engine/safetensors.hpp"
#include "tests/golden_cases.hpp"
#include "tests/scratch_folder.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

template <class T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

// Pieces of pickles. A value is the code that leaves it on the stack.
std::string text(const std::string& value) {
  return 'X' + raw(static_cast<std::uint32_t>(value.size())) + value;
}
std::string whole(std::int32_t value) {
  return 'J' + raw(value);
}
std::string global(const std::string& module, const std::string& name) {
  return 'c' + module + '\n' + name + '\n';
}
std::string tuple(const std::vector<std::string>& items) {
  std::string code = "(";
  for (const std::string& item : items) code += item;
  return code + 't';
}
std::string dict(const std::vector<std::pair<std::string, std::string>>& entries) {
  std::string code = "}(";
  for (const auto& [key, value] : entries) code += text(key) + value;
  return code + 'u';
}
std::string call(const std::string& module, const std::string& name, const std::string& arguments) {
  return global(module, name) + arguments + 'R';
}
std::string pickled(const std::string& value) {
  return std::string("\x80\x02", 2) + value + '.';
}
std::string wholes(const std::vector<std::int32_t>& values) {
  std::vector<std::string> items;
  for (const std::int32_t value : values) items.push_back(whole(value));
  return tuple(items);
}
std::string storage(const std::string& type, const std::string& key, std::int32_t count,
                    const std::string& part = "N") {
  return tuple({text("storage"), global("torch", type), text(key), text("cpu"), whole(count), part}) + 'Q';
}
std::string tensor(const std::string& stored, std::int32_t offset, const std::vector<std::int32_t>& sizes,
                   const std::vector<std::int32_t>& strides) {
  return call("torch._utils", "_rebuild_tensor_v2",
              tuple({stored, whole(offset), wholes(sizes), wholes(strides), "\x89", "}"}));
}

const std::string kMagic("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);

template <class T>
std::string stored(const std::vector<T>& values) {
  std::string bytes = raw(static_cast<std::uint64_t>(values.size()));
  for (const T& value : values) bytes += raw(value);
  return bytes;
}

/// A stream with the object and its storages (key and bytes with their count in front).
std::string stream_file(const std::string& object,
                        const std::vector<std::pair<std::string, std::string>>& storages = {}) {
  std::string keys = "](", data;
  for (const auto& [key, bytes] : storages) {
    keys += text(key);
    data += bytes;
  }
  return kMagic + pickled(whole(1001)) + pickled(dict({{"little_endian", "\x88"}})) + pickled(object) +
         pickled(keys + 'e') + data;
}

struct ZipEntry {
  std::string name;
  std::string content;
  bool deflated = false;
};

std::string deflate_bytes(const std::string& content) {
  z_stream stream{};
  deflateInit2(&stream, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  std::string packed(deflateBound(&stream, content.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(content.data()));
  stream.avail_in = static_cast<uInt>(content.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

std::string zip_file(const std::vector<ZipEntry>& entries) {
  std::string file, directory;
  for (const auto& [name, content, deflated] : entries) {
    const std::string packed = deflated ? deflate_bytes(content) : content;
    const auto checksum = static_cast<std::uint32_t>(
        crc32(0, reinterpret_cast<const Bytef*>(content.data()), static_cast<uInt>(content.size())));
    const std::string common =
        raw<std::uint16_t>(0) + raw<std::uint16_t>(deflated ? 8 : 0) + raw<std::uint32_t>(0) + raw(checksum) +
        raw(static_cast<std::uint32_t>(packed.size())) + raw(static_cast<std::uint32_t>(content.size())) +
        raw(static_cast<std::uint16_t>(name.size())) + raw<std::uint16_t>(0);
    directory += raw<std::uint32_t>(0x02014b50) + raw<std::uint16_t>(20) + raw<std::uint16_t>(20) + common +
                 std::string(10, '\0') + raw(static_cast<std::uint32_t>(file.size())) + name;
    file += raw<std::uint32_t>(0x04034b50) + raw<std::uint16_t>(20) + common + name + packed;
  }
  const auto begin = static_cast<std::uint32_t>(file.size());
  const auto count = static_cast<std::uint16_t>(entries.size());
  return file + directory + raw<std::uint32_t>(0x06054b50) + std::string(4, '\0') + raw(count) + raw(count) +
         raw(static_cast<std::uint32_t>(directory.size())) + raw(begin) + std::string(2, '\0');
}

std::string tar_file(const std::vector<std::pair<std::string, std::string>>& entries) {
  std::string file;
  for (const auto& [name, content] : entries) {
    std::string header(512, '\0');
    char size[12];
    std::snprintf(size, sizeof(size), "%011zo", content.size());
    header.replace(0, name.size(), name).replace(124, 11, size).replace(156, 1, "0").replace(257, 5, "ustar");
    file += header + content;
    file.resize((file.size() + 511) / 512 * 512, '\0');
  }
  return file + std::string(1024, '\0');
}

class TorchFile : public ::testing::Test {
 protected:
  TorchValue load(const std::string& bytes) {
    write_bytes(path_, bytes);
    EXPECT_TRUE(is_torch_file(path_));
    return load_torch_file(path_);
  }
  Tensor load_tensor(const std::string& bytes) { return *load(bytes).as<Tensor>(); }

  /// Expects an InputError of one short line that names the file and gives the reason.
  void expect_refused(const std::string& bytes, const std::string& reason) {
    write_bytes(path_, bytes);
    reset_peak_memory(DeviceType::cpu);
    try {
      load_torch_file(path_);
      ADD_FAILURE() << "accepted; expected: " << reason;
    } catch (const InputError& error) {
      const std::string message = error.what();
      EXPECT_NE(message.find(path_.string()), std::string::npos) << message;
      EXPECT_NE(message.find(reason), std::string::npos) << message;
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
      EXPECT_LT(message.size(), 500u);
    }
    EXPECT_LE(memory_use(DeviceType::cpu).peak_bytes,
              static_cast<std::int64_t>(4 * bytes.size() + (2 << 20)));
  }

  ScratchFolder folder_;
  const std::filesystem::path path_ = folder_ / "file.pth.tar";
};

TEST_F(TorchFile, PlainValuesOfEveryKind) {
  const std::string real = "G" + std::string("\x3f\xf8\0\0\0\0\0\0", 8);  // 1.5
  const TorchValue file = load(stream_file(
      dict({{"none", "N"},
            {"true", "\x88"},
            {"byte", "K\xff"},
            {"short", "M" + raw<std::uint16_t>(65535)},
            {"int", whole(-7)},
            {"long", std::string("\x8a\x05\0\0\0\0\xff", 7)},
            {"nothing", std::string("\x8a\0", 2)},
            {"digits", "I1099511627776\n"},
            {"real", real},
            {"python2", std::string("U\x02") + "ab"},
            {"bytes", std::string("C\x02") + "cd"},
            {"list", "](" + whole(1) + whole(2) + "e" + whole(3) + "a"},
            {"pair", whole(4) + whole(5) + "\x86"},
            {"size", call("torch", "Size", tuple({wholes({2, 3})}))},
            {"ordered", call("collections", "OrderedDict", tuple({"](" + wholes({8, 9}) + "e"})) + "}b"},
            {"true", "\x89"}})));
  EXPECT_NE(file.find("none")->as<TorchValue::None>(), nullptr);
  EXPECT_EQ(file.find("byte")->number(), 255.0);
  EXPECT_EQ(file.find("short")->number(), 65535.0);
  EXPECT_EQ(file.find("int")->number(), -7.0);
  EXPECT_EQ(*file.find("long")->as<std::int64_t>(), -(std::int64_t{1} << 32));
  EXPECT_EQ(*file.find("nothing")->as<std::int64_t>(), 0);
  EXPECT_EQ(*file.find("digits")->as<std::int64_t>(), std::int64_t{1} << 40);
  EXPECT_EQ(*file.find("real")->as<double>(), 1.5);
  EXPECT_EQ(*file.find("python2")->as<std::string>(), "ab");
  EXPECT_EQ(*file.find("bytes")->as<std::string>(), "cd");
  EXPECT_EQ(file.find("list")->as<TorchValue::List>()->size(), 3u);
  EXPECT_EQ(file.find("pair")->as<TorchValue::List>()->at(1).number(), 5.0);
  EXPECT_EQ(file.find("size")->as<TorchValue::List>()->at(0).number(), 2.0);
  EXPECT_EQ(file.find("ordered")->find("8")->number(), 9.0);
  EXPECT_FALSE(*file.find("true")->as<bool>()) << "the last of two equal keys counts";
  EXPECT_EQ(file.find("absent"), nullptr);
}

TEST_F(TorchFile, NumpyNumbers) {
  const auto dtype = [](const std::string& type, const std::string& order) {
    return call("numpy", "dtype", tuple({text(type), whole(0), whole(1)})) + tuple({whole(3), text(order)}) +
           "b";
  };
  const auto scalar = [](const std::string& type, const std::string& bytes) {
    return call("numpy.core.multiarray", "scalar", tuple({type, bytes}));
  };
  // 0.1 as the bytes 9a 99 99 99 99 99 b9 3f in the spelling of Python 3 for protocol 2.
  const std::string tenth =
      call("_codecs", "encode",
           tuple({text("\xc2\x9a\xc2\x99\xc2\x99\xc2\x99\xc2\x99\xc2\x99\xc2\xb9?"), text("latin1")}));
  EXPECT_EQ(load(stream_file(scalar(dtype("f8", "<"), tenth))).number(), 0.1);
  EXPECT_EQ(load(stream_file(scalar(dtype("i4", "<"), "U\x04" + raw(-5)))).number(), -5.0);
  expect_refused(stream_file(scalar(dtype("f8", ">"), tenth)), "unknown type >f8");
  expect_refused(stream_file(scalar(dtype("i8", "<"), "U\x04" + raw(-5))), "4 bytes");
}

TEST_F(TorchFile, TensorsOfEveryStorageTypeAndLayout) {
  const auto one = [&](const std::string& type, const std::string& bytes) {
    return load_tensor(stream_file(tensor(storage(type, "7", 2), 0, {2}, {1}), {{"7", bytes}}));
  };
  EXPECT_EQ(one("FloatStorage", stored<float>({1.5f, -2})).to_vector<float>(),
            (std::vector<float>{1.5f, -2}));
  EXPECT_EQ(one("DoubleStorage", stored<double>({0.1, 2})).dtype(), DType::f64);
  EXPECT_EQ(one("HalfStorage", stored<std::uint16_t>({0x3c00, 0xc000})).to_vector<float>(),
            (std::vector<float>{1, -2}));
  EXPECT_EQ(one("BFloat16Storage", stored<std::uint16_t>({0x3f80, 0xc000})).to_vector<float>(),
            (std::vector<float>{1, -2}));
  const std::vector<std::int64_t> expected{-3, 100};
  EXPECT_EQ(one("LongStorage", stored<std::int64_t>({-3, 100})).to_vector<std::int64_t>(), expected);
  EXPECT_EQ(one("IntStorage", stored<std::int32_t>({-3, 100})).to_vector<std::int64_t>(), expected);
  EXPECT_EQ(one("ShortStorage", stored<std::int16_t>({-3, 100})).to_vector<std::int64_t>(), expected);
  EXPECT_EQ(one("CharStorage", stored<std::int8_t>({-3, 100})).to_vector<std::int64_t>(), expected);
  EXPECT_EQ(one("ByteStorage", stored<std::uint8_t>({3, 255})).to_vector<float>(),
            (std::vector<float>{3, 255}));
  EXPECT_EQ(one("BoolStorage", stored<std::uint8_t>({0, 1})).dtype(), DType::u8);

  const std::vector<std::pair<std::string, std::string>> six{{"k", stored<float>({0, 1, 2, 3, 4, 5})}};
  const std::string all = storage("FloatStorage", "k", 6);
  EXPECT_EQ(load_tensor(stream_file(tensor(all, 1, {2, 2}, {1, 2}), six)).to_vector<float>(),
            (std::vector<float>{1, 3, 2, 4}));
  EXPECT_EQ(load_tensor(stream_file(tensor(all, 5, {}, {}), six)).item(), 5.0);
  EXPECT_EQ(load_tensor(stream_file(tensor(all, 3, {3, 0}, {9, 9}), six)).shape(), (Shape{3, 0}));
  const std::string part = storage("FloatStorage", "k", 6, tuple({text("v"), whole(2), whole(3)}));
  EXPECT_EQ(load_tensor(stream_file(tensor(part, 1, {2}, {1}), six)).to_vector<float>(),
            (std::vector<float>{3, 4}));
  const std::string parameter =
      call("torch._utils", "_rebuild_parameter", tuple({tensor(all, 0, {1}, {1}), "\x88", "}"}));
  EXPECT_EQ(load_tensor(stream_file(parameter, six)).item(), 0.0);
}

TEST_F(TorchFile, ZipArchivesStoredAndDeflated) {
  const std::string object = pickled(tensor(storage("FloatStorage", "0", 3), 0, {3}, {1}));
  const std::string data = raw(1.0f) + raw(2.0f) + raw(3.0f);
  for (const bool deflated : {false, true}) {
    const std::string file = zip_file(
        {{"net/data.pkl", object, deflated}, {"net/byteorder", "little"}, {"net/data/0", data, deflated}});
    EXPECT_EQ(load_tensor(file).to_vector<float>(), (std::vector<float>{1, 2, 3}));
  }
  expect_refused(zip_file({{"net/data.pkl", object}, {"net/byteorder", "big"}}), "big-endian");
  expect_refused(zip_file({{"net/data.pkl", object}}), "no entry net/data/0");
  expect_refused(zip_file({{"net/other", object}}), "without data.pkl");
  expect_refused(zip_file({{"net/data.pkl", object}, {"net/data/0", data + data}}), "length");
  expect_refused(zip_file({{"net/data.pkl", object}, {"net/data.pkl", object}}), "twice");
}

TEST_F(TorchFile, TarContainersOfTheFirstVersions) {
  const std::string storages =
      pickled(whole(1)) + pickled(tuple({whole(11), text("cpu"), global("torch", "FloatStorage")})) +
      stored<float>({1, 2, 3, 4}) + pickled("](" + tuple({whole(12), whole(11), whole(1), whole(3)}) + "e");
  const std::string tensors =
      pickled(whole(1)) + pickled(tuple({whole(21), whole(12), global("torch", "FloatTensor")})) +
      raw<std::int64_t>(1) + raw<std::int64_t>(2) + raw<std::int64_t>(2) + raw<std::int64_t>(0);
  const std::string object = pickled(dict({{"whole", whole(21) + "Q"}, {"digits", text("21") + "Q"}}));
  const TorchValue file =
      load(tar_file({{"sys_info", "x"}, {"pickle", object}, {"tensors", tensors}, {"storages", storages}}));
  EXPECT_EQ(file.find("whole")->as<Tensor>()->to_vector<float>(), (std::vector<float>{2, 4}));
  EXPECT_EQ(file.find("digits")->as<Tensor>()->raw(), file.find("whole")->as<Tensor>()->raw());
  expect_refused(tar_file({{"pickle", object}, {"tensors", tensors}}), "truncated");
  expect_refused(
      tar_file({{"pickle", pickled(whole(5) + "Q")}, {"tensors", tensors}, {"storages", storages}}),
      "tensor that it does not hold");
}

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
