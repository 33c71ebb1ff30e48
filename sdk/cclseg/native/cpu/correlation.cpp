// Checks a problem, cuts it into tiles, and chooses the kernel for this processor.
#include "correlation.h"

#include <atomic>
#include <cstring>

namespace cclseg {

#if defined(__x86_64__)
extern const Kernel kAvx512Vnni, kAvx512, kAvx2;
#elif defined(__aarch64__)
extern const Kernel kNeonDot, kNeon;
#endif
extern const Kernel kPortable;

namespace {

constexpr int64_t kTileBytes = 512 * 1024;  // half of the second-level cache of most processors
constexpr int64_t kTileColumns = 128;
constexpr int64_t kTileRows = 16;
constexpr int64_t kFewestTiles = 16;  // so that all threads get a share

int64_t parts_of(int64_t length, int64_t part) { return (length + part - 1) / part; }

struct Job {
  const Kernel* kernel;
  const Problem* problem;
  const void* a;
  const void* b;
  float* out;
  int64_t tile_rows, tile_columns, tiles_y, tiles_x;
  std::atomic<bool> failed{false};
};

void plan_tiles(Job* job) {
  const Problem& p = *job->problem;
  const int64_t reach = p.radius * p.dilation;
  job->tiles_x = parts_of(p.width, kTileColumns);
  job->tile_columns = parts_of(p.width, job->tiles_x);
  const int64_t bytes = p.type == Type::kFloat32 ? 4 : 1;
  const int64_t row_bytes = bytes * (p.channels / p.groups) * (job->tile_columns + 2 * reach);
  int64_t rows = kTileBytes / row_bytes - 2 * reach;
  if (rows > kTileRows) rows = kTileRows;
  const int64_t others = p.batch * p.groups * job->tiles_x;
  const int64_t wanted = parts_of(kFewestTiles, others);
  if (rows > parts_of(p.height, wanted)) rows = parts_of(p.height, wanted);
  if (rows < 8) rows = 8;  // below that the border is most of the work
  job->tiles_y = parts_of(p.height, rows);
  job->tile_rows = parts_of(p.height, job->tiles_y);
}

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

void run_tile(void* data, size_t index) {
  Job* job = static_cast<Job*>(data);
  const Problem& p = *job->problem;
  int64_t i = static_cast<int64_t>(index);
  Tile tile;
  tile.problem = job->problem;
  tile.a = job->a;
  tile.b = job->b;
  tile.out = job->out;
  tile.x = i % job->tiles_x * job->tile_columns;
  i /= job->tiles_x;
  tile.y = i % job->tiles_y * job->tile_rows;
  i /= job->tiles_y;
  tile.group = i % p.groups;
  tile.image = i / p.groups;
  tile.rows = smaller(job->tile_rows, p.height - tile.y);
  tile.columns = smaller(job->tile_columns, p.width - tile.x);
  if (tile.rows <= 0 || tile.columns <= 0) return;
  const TileFunction function =
      p.type == Type::kFloat32 ? job->kernel->float32 : job->kernel->int8;
  if (!function(tile)) job->failed = true;
}

}  // namespace

const char* misfit(const Problem& p) {
  if (p.radius < 0) return "the radius is negative; expected 0 or more";
  if (p.dilation < 1) return "the dilation is below 1; expected 1 or more";
  if (p.groups < 1 || p.channels < 1 || p.channels % p.groups) {
    return "the groups do not divide the channels";
  }
  if (p.radius > 1024 || p.dilation > 65536) return "the window is too large";
  return nullptr;
}

int64_t window_size(const Problem& p) { return p.groups * (2 * p.radius + 1) * (2 * p.radius + 1); }

const Kernel* kernels(size_t* count) {
  static const Kernel all[] = {
#if defined(__x86_64__)
      kAvx512Vnni, kAvx512, kAvx2,
#elif defined(__aarch64__)
      kNeonDot, kNeon,
#endif
      kPortable};
  *count = sizeof all / sizeof all[0];
  return all;
}

const Kernel& best_kernel() {
  size_t count;
  const Kernel* all = kernels(&count);
  size_t best = 0;
  while (!all[best].is_supported()) ++best;
  return all[best];
}

const Kernel* find_kernel(const char* name) {
  size_t count;
  const Kernel* all = kernels(&count);
  for (size_t i = 0; i < count; ++i) {
    if (strcmp(all[i].name, name) == 0) return all[i].is_supported() ? &all[i] : nullptr;
  }
  return nullptr;
}

bool correlate(const Kernel& kernel, const Problem& problem, const void* a, const void* b,
               float* out, Threads threads) {
  if (problem.batch == 0 || problem.height == 0 || problem.width == 0) return true;
  Job job;
  job.kernel = &kernel;
  job.problem = &problem;
  job.a = a;
  job.b = b;
  job.out = out;
  plan_tiles(&job);
  const int64_t count = problem.batch * problem.groups * job.tiles_y * job.tiles_x;
  threads.run(threads.host, run_tile, static_cast<size_t>(count), &job);
  return !job.failed;
}

}  // namespace cclseg
