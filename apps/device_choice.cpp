#include "apps/device_choice.hpp"

namespace cinnabar::apps {

DeviceChoice choose_device(const std::string& text) {
  if (text != "auto") {
    const Device device = Device::parse(text);
    require_device(device);
    return {device, "as asked"};
  }
  const CudaStatus& status = cuda_status();
  if (status.device_count > 0 && !cuda_is_emulated()) return {Device::cuda(0), "a usable GPU is present"};
  return {Device::cpu(), status.reason};
}

}  // namespace cinnabar::apps
