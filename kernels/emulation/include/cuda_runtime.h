#pragma once

#include "cuda_runtime_api.h"
#include "kernels/emulation/cuda.hpp"
