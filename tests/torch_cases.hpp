#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <vector>

#include "engine/safetensors.hpp"
#include "tests/devices.hpp"

namespace cinnabar::testing {

/// One case of a golden file written from PyTorch, on one device and dtype. Tensors are named CASE.TENSOR;
/// the metadata entry of the case's name holds its options as JSON.
struct TorchCase {
  std::filesystem::path file;
  std::string name;
  nlohmann::json options;  ///< null where the file gave no case; `name` then says why
  Device device;
  DType dtype = DType::f32;
  std::shared_ptr<const SafeTensorsFile> content = {};  ///< opened once for all cases of a file

  /// The case's tensors by their own names, on the case's device and in its dtype where they are floating.
  std::map<std::string, Tensor> read() const;

  /// Allowed max |error| / max |reference|: ten times what torch itself loses in float32; in float64 the one
  /// rounding of the stored reference.
  double tolerance(const std::string& tensor) const;
};

void PrintTo(const TorchCase& golden, std::ostream* out);

/// Every case of every golden file whose name contains one of the families or whose metadata entry `family`
/// begins with one: f32 and f64 on the CPU, f32 on CUDA. A file that cannot be read or holds no case, and a
/// case whose options cannot be read, give one case without options, which tests must refuse.
std::vector<TorchCase> torch_cases(const std::vector<std::string>& families);

std::string name_of_torch_case(const ::testing::TestParamInfo<TorchCase>& info);

}  // namespace cinnabar::testing
