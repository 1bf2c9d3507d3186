// Reading what PyTorch saved: values, tensors, containers.

#include "tests/torch_pieces.hpp"

namespace cinnabar::testing {
namespace {

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

}  // namespace
}  // namespace cinnabar::testing
