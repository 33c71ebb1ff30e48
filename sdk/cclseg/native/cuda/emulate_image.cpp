// The image kernels for the CPU, by name, for tests and for looking into them with a debugger.

#include "image_kernels.cu"

using ImageKernel = void (*)(const void* params);

#define CCLSEG_IMAGE_KERNEL(name, Params)                                      \
  if (std::strcmp(wanted, #name) == 0) {                                       \
    *params_bytes = sizeof(Params);                                            \
    return [](const void* params) { name(*static_cast<const Params*>(params)); }; \
  }

// Returns a function that runs one thread, and the size of its parameters; null where there is no
// such kernel.
extern "C" ImageKernel cclseg_find_image_kernel(const char* wanted, size_t* params_bytes) {
  CCLSEG_IMAGE_KERNEL(cclseg_normalise, NormaliseParams)
  CCLSEG_IMAGE_KERNEL(cclseg_blend, BlendParams)
  CCLSEG_IMAGE_KERNEL(cclseg_class_ids_u8, ClassParams)
  CCLSEG_IMAGE_KERNEL(cclseg_class_ids_u16, ClassParams)
  CCLSEG_IMAGE_KERNEL(cclseg_confidence, ClassParams)
  return nullptr;
}

extern "C" void cclseg_emulate_image(const char* name, const int* grid, const int* threads,
                                     const void* params) {
  size_t params_bytes;
  const ImageKernel kernel = cclseg_find_image_kernel(name, &params_bytes);
  emulation::run({grid[0], grid[1], grid[2]}, {threads[0], threads[1], threads[2]}, 0, false,
                 [=] { kernel(params); });
}
