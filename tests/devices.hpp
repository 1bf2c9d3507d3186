#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "engine/device.hpp"

namespace cinnabar::testing {

/// For SetUp: skips the test, visibly, where the device does not exist; REQUIRE_GPU=1 in the environment
/// turns the skip into a failure.
inline void skip_unless_available(Device device) {
  if (device.is_cpu() || cuda_status().device_count > 0) return;
  const char* required = std::getenv("REQUIRE_GPU");
  if (required != nullptr && std::string(required) == "1") FAIL() << cuda_status().reason;
  GTEST_SKIP() << "no CUDA device: " << cuda_status().reason;
}

/// A test that runs once per device.
class OnDevice : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    device_ = Device::parse(GetParam());
    skip_unless_available(device_);
  }
  Device device() const { return device_; }

 private:
  Device device_;
};

}  // namespace cinnabar::testing

/// Runs every TEST_P of a suite derived from OnDevice on the CPU and on CUDA.
#define CINNABAR_ON_EACH_DEVICE(SUITE)                                       \
  INSTANTIATE_TEST_SUITE_P(Devices, SUITE, ::testing::Values("cpu", "cuda"), \
                           [](const auto& device_case) { return std::string(device_case.param); })
