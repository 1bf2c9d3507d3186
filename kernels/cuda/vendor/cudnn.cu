// cuDNN behind kernels/cuda/vendor/cudnn.hpp.

#include "kernels/cuda/vendor/cudnn.hpp"

#include "engine/error.hpp"

#ifdef CINNABAR_HAS_CUDNN

#include <cudnn.h>

#include <map>
#include <memory>
#include <tuple>

#include "engine/cuda_check.hpp"
#include "engine/stream.hpp"
#include "engine/tensor.hpp"

namespace cinnabar::cuda::vendor {

namespace {

constexpr const char* kOp = "conv3d";

void check(cudnnStatus_t status, const char* call) {
  if (status != CUDNN_STATUS_SUCCESS) fail(kOp, detail::concat(call, ": ", cudnnGetErrorString(status)));
}
#define CINNABAR_CUDNN(CALL, ...) check(CALL(__VA_ARGS__), #CALL)

/// A descriptor of cuDNN, made and destroyed by two of its functions.
template <class Handle, cudnnStatus_t (*kCreate)(Handle*), cudnnStatus_t (*kDestroy)(Handle)>
class Described {
 public:
  Described() { check(kCreate(&handle_), "cuDNN's creation of a descriptor"); }
  ~Described() { kDestroy(handle_); }
  Described(const Described&) = delete;
  Described& operator=(const Described&) = delete;
  operator Handle() const { return handle_; }

 private:
  Handle handle_ = nullptr;
};

using Library = Described<cudnnHandle_t, cudnnCreate, cudnnDestroy>;
using TensorShape =
    Described<cudnnTensorDescriptor_t, cudnnCreateTensorDescriptor, cudnnDestroyTensorDescriptor>;
using FilterShape =
    Described<cudnnFilterDescriptor_t, cudnnCreateFilterDescriptor, cudnnDestroyFilterDescriptor>;
using Geometry = Described<cudnnConvolutionDescriptor_t, cudnnCreateConvolutionDescriptor,
                           cudnnDestroyConvolutionDescriptor>;

void describe(const TensorShape& shape, int batch, int channels, const std::array<int, 3>& extent) {
  const int extents[5] = {batch, channels, extent[0], extent[1], extent[2]};
  int strides[5] = {0, 0, 0, 0, 1};
  for (int axis = 3; axis >= 0; --axis) strides[axis] = strides[axis + 1] * extents[axis + 1];
  CINNABAR_CUDNN(cudnnSetTensorNdDescriptor, shape, CUDNN_DATA_FLOAT, 5, extents, strides);
}

/// A problem as cuDNN wants it described.
struct Description {
  TensorShape input, output;
  FilterShape weight;
  Geometry geometry;

  explicit Description(const CudnnConvolution& p) {
    describe(input, p.batch, p.channels, p.in);
    describe(output, p.batch, p.filters, p.out);
    const int extents[5] = {p.filters, p.channels / p.groups, p.kernel[0], p.kernel[1], p.kernel[2]};
    CINNABAR_CUDNN(cudnnSetFilterNdDescriptor, weight, CUDNN_DATA_FLOAT, CUDNN_TENSOR_NCHW, 5, extents);
    CINNABAR_CUDNN(cudnnSetConvolutionNdDescriptor, geometry, 3, p.padding.data(), p.stride.data(),
                   p.dilation.data(), CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT);
    CINNABAR_CUDNN(cudnnSetConvolutionGroupCount, geometry, p.groups);
    CINNABAR_CUDNN(cudnnSetConvolutionMathType, geometry, CUDNN_FMA_MATH);
  }
};

struct Chosen {
  int algorithm = -1;
  std::size_t workspace_bytes = 0;
};

/// The fastest deterministic fp32 algorithm of those that cuDNN measured, fastest first.
template <class Measured>
Chosen choose(const Measured* measured, int count) {
  for (int i = 0; i < count; ++i) {
    const bool exact = measured[i].mathType == CUDNN_DEFAULT_MATH || measured[i].mathType == CUDNN_FMA_MATH;
    if (measured[i].status == CUDNN_STATUS_SUCCESS && measured[i].determinism == CUDNN_DETERMINISTIC &&
        exact) {
      return {static_cast<int>(measured[i].algo), measured[i].memory};
    }
  }
  fail(kOp, "cuDNN has no deterministic fp32 algorithm for this convolution");
}

Chosen measure(cudnnHandle_t library, CudnnPass pass, const Description& d) {
  constexpr int kMost = 16;
  int count = 0;
  switch (pass) {
    case CudnnPass::forward: {
      cudnnConvolutionFwdAlgoPerf_t measured[kMost];
      CINNABAR_CUDNN(cudnnFindConvolutionForwardAlgorithm, library, d.input, d.weight, d.geometry, d.output,
                     kMost, &count, measured);
      return choose(measured, count);
    }
    case CudnnPass::backward_input: {
      cudnnConvolutionBwdDataAlgoPerf_t measured[kMost];
      CINNABAR_CUDNN(cudnnFindConvolutionBackwardDataAlgorithm, library, d.weight, d.output, d.geometry,
                     d.input, kMost, &count, measured);
      return choose(measured, count);
    }
    default: {
      cudnnConvolutionBwdFilterAlgoPerf_t measured[kMost];
      CINNABAR_CUDNN(cudnnFindConvolutionBackwardFilterAlgorithm, library, d.input, d.output, d.geometry,
                     d.weight, kMost, &count, measured);
      return choose(measured, count);
    }
  }
}

/// What a thread keeps for one device. Not destroyed: at the end of a process the driver may be gone first.
struct Session {
  Library library;
  std::map<std::tuple<CudnnPass, CudnnConvolution>, Chosen> chosen;
};

Session& session_on(Device device) {
  thread_local std::map<int, Session*> sessions;
  Session*& session = sessions[device.index];
  if (session == nullptr) session = new Session;
  CINNABAR_CUDNN(cudnnSetStream, session->library, static_cast<cudaStream_t>(current_stream(device)));
  return *session;
}

}  // namespace

bool has_cudnn() {
  return true;
}

void run(CudnnPass pass, const CudnnConvolution& problem, const float* first, const float* second,
         float* result, Device device) {
  const DeviceScope scope(device);
  Session& session = session_on(device);
  const Description d(problem);
  Chosen& chosen = session.chosen[{pass, problem}];
  if (chosen.algorithm < 0) chosen = measure(session.library, pass, d);
  Tensor workspace =
      Tensor::empty({static_cast<std::int64_t>(chosen.workspace_bytes / 4) + 1}, DType::f32, device);
  const float one = 1.0f;
  const float zero = 0.0f;
  switch (pass) {
    case CudnnPass::forward:
      CINNABAR_CUDNN(cudnnConvolutionForward, session.library, &one, d.input, first, d.weight, second,
                     d.geometry, static_cast<cudnnConvolutionFwdAlgo_t>(chosen.algorithm), workspace.raw(),
                     chosen.workspace_bytes, &zero, d.output, result);
      return;
    case CudnnPass::backward_input:
      CINNABAR_CUDNN(cudnnConvolutionBackwardData, session.library, &one, d.weight, second, d.output, first,
                     d.geometry, static_cast<cudnnConvolutionBwdDataAlgo_t>(chosen.algorithm),
                     workspace.raw(), chosen.workspace_bytes, &zero, d.input, result);
      return;
    case CudnnPass::backward_weight:
      CINNABAR_CUDNN(cudnnConvolutionBackwardFilter, session.library, &one, d.input, second, d.output, first,
                     d.geometry, static_cast<cudnnConvolutionBwdFilterAlgo_t>(chosen.algorithm),
                     workspace.raw(), chosen.workspace_bytes, &zero, d.weight, result);
      return;
  }
}

}  // namespace cinnabar::cuda::vendor

#else

namespace cinnabar::cuda::vendor {

bool has_cudnn() {
  return false;
}

void run(CudnnPass, const CudnnConvolution&, const float*, const float*, float*, Device) {
  fail("conv3d", "built without cuDNN");
}

}  // namespace cinnabar::cuda::vendor

#endif
