#include "apps/network_options.hpp"

#include <map>
#include <string>

namespace cinnabar::apps {

void add_precision_option(CLI::App& command, Conv3dPrecision& precision) {
  command
      .add_option_function<std::string>(
          "--precision", [&precision](const std::string& name) { precision = parse_conv3d_precision(name); },
          "what the network's convolutions round the factors of their products to; fp32 rounds nothing, the "
          "others are for the speed of a GPU's tensor cores")
      ->check(CLI::IsMember({"fp32", "tf32", "fp16", "bf16"}))
      ->default_str(std::string(name_of(precision)));
}

void add_storage_option(CLI::App& command, DType& storage) {
  static const std::map<std::string, DType> kStorages{
      {"f32", DType::f32}, {"f16", DType::f16}, {"bf16", DType::bf16}};
  command.add_option("--storage", storage, "type of the written weights: f32, f16 or bf16")
      ->transform(CLI::CheckedTransformer(kStorages))
      ->default_str("f32");
}

}  // namespace cinnabar::apps
