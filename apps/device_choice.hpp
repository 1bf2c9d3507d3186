#pragma once

#include <string>

#include "engine/device.hpp"

namespace cinnabar::apps {

/// A device and one phrase that says why it was taken.
struct DeviceChoice {
  Device device;
  std::string reason;
};

/// "auto" takes the first GPU if there is one, else the CPU; anything else is taken as it is. Throws
/// InputError for a device this machine or build does not have.
DeviceChoice choose_device(const std::string& text);

}  // namespace cinnabar::apps
