#pragma once

// The four ways of the CPU, each for float and double, on checked shapes.

#include "kernels/conv3d.hpp"
#include "kernels/epilogue_math.hpp"

namespace cinnabar::cpu {

#define CINNABAR_CONV3D_BACKEND(NAME)                                                                      \
  namespace NAME {                                                                                         \
  template <class T>                                                                                       \
  void forward(const Conv3dShape& shape, const T* input, const T* weight, const EpilogueMath<T>& epilogue, \
               T* output);                                                                                 \
  template <class T>                                                                                       \
  void backward_input(const Conv3dShape& shape, const T* grad_output, const T* weight,                     \
                      const EpilogueMath<T>& epilogue, T* grad_input);                                     \
  template <class T>                                                                                       \
  void backward_weight(const Conv3dShape& shape, const T* grad_output, const T* input, T* grad_weight);    \
  }

CINNABAR_CONV3D_BACKEND(conv3d_reference)
CINNABAR_CONV3D_BACKEND(conv3d_gemm)
CINNABAR_CONV3D_BACKEND(conv3d_fft)
CINNABAR_CONV3D_BACKEND(conv3d_direct)

#undef CINNABAR_CONV3D_BACKEND

}  // namespace cinnabar::cpu

/// Behind the templates of a backend: makes them for float and double.
#define CINNABAR_CONV3D_INSTANTIATE(T)                                                                 \
  template void forward<T>(const Conv3dShape&, const T*, const T*, const EpilogueMath<T>&, T*);        \
  template void backward_input<T>(const Conv3dShape&, const T*, const T*, const EpilogueMath<T>&, T*); \
  template void backward_weight<T>(const Conv3dShape&, const T*, const T*, T*)
