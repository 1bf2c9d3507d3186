#include "autograd/variable.hpp"

namespace cinnabar {

namespace {
thread_local bool recording = true;
}

NoGrad::NoGrad() : previous_(recording) {
  recording = false;
}
NoGrad::~NoGrad() {
  recording = previous_;
}
bool grad_enabled() {
  return recording;
}

}  // namespace cinnabar
