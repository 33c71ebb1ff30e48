// Runs one kernel on the maps that stand in standard input; for processors and sanitizers that a
// Python process cannot have. Without arguments it names the kernels that this processor runs.
//
// Input: int64 is_int8, batch, channels, height, width, radius, dilation, groups, normalize; two
// float scales; both maps. Output: the float32 result.
#include <cstdint>
#include <cstdio>
#include <vector>

extern "C" {
const char* cclseg_kernel_name(int i);
int cclseg_kernel_is_supported(const char* name);
const char* cclseg_local_correlation(const char* kernel, const void* a, const void* b,
                                     const int64_t* sizes, const int64_t* window,
                                     const float* scales, float* out);
}

template <class T>
std::vector<T> read(size_t count) {
  std::vector<T> values(count);
  if (fread(values.data(), sizeof(T), count, stdin) != count) fputs("input is cut off\n", stderr);
  return values;
}

int main(int argc, char** argv) {
  if (argc < 2) {
    for (int i = 0; const char* name = cclseg_kernel_name(i); ++i) {
      if (cclseg_kernel_is_supported(name)) puts(name);
    }
    return 0;
  }
  const std::vector<int64_t> header = read<int64_t>(9);
  const std::vector<float> scales = read<float>(2);
  const int64_t* sizes = &header[1];
  const int64_t* window = &header[5];
  const size_t places = sizes[0] * sizes[2] * sizes[3];
  const size_t bytes = places * sizes[1] * (header[0] ? 1 : 4);
  const std::vector<char> a = read<char>(bytes), b = read<char>(bytes);
  const int64_t side = 2 * window[0] + 1;
  std::vector<float> out(places * window[2] * side * side);
  const char* reason = cclseg_local_correlation(argv[1], a.data(), b.data(), sizes, window,
                                                header[0] ? scales.data() : nullptr, out.data());
  if (reason != nullptr) {
    fprintf(stderr, "%s\n", reason);
    return 1;
  }
  fwrite(out.data(), sizeof(float), out.size(), stdout);
  return 0;
}
