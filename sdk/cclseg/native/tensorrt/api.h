// TensorRT's own headers where the build names them, otherwise the minimal declarations.

#pragma once

#if defined(CCLSEG_TENSORRT_HEADERS)
#include <NvInferRuntime.h>
#else
#include "minimal_api.h"
#endif
