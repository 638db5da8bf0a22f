/* The calls of the CUDA driver and runtime that edgead makes, on the host: memory is malloc's, a stream runs at once,
   and a graph is the list of copies that were made while it was recorded. */
#include <stdlib.h>
#include <string.h>

enum { MEMORY = 2, NOT_PERMITTED = 800, INVALIDATED = 901, MOST = 64 };

int cuInit(unsigned flags) { return flags ? 1 : 0; }
int cuDeviceGetCount(int *count) { return *count = 1, 0; }
int cuDeviceGet(int *device, int number) { return *device = number, 0; }
int cuDeviceGetName(char *name, int length, int device) { return strncpy(name, "Host", length), device; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 8 : attribute == 76 ? 7 : 0;
    return device;
}
int cuDriverGetVersion(int *version) { return *version = 12060, 0; }

struct copy { void *target; const void *source; size_t size; };
struct graph { struct copy copies[MOST]; int count; };
static struct graph *recorded;
static int broken, allocated;

int edgead_test_allocated(void) { return allocated; }
void edgead_test_break_the_recording(void) { if (recorded) broken = 1; }

#ifdef TOO_NEW
int cudaGetDeviceCount(int *count) { return *count = 0, 35; }
#else
int cudaGetDeviceCount(int *count) { return *count = 1, 0; }
#endif
int cudaSetDevice(int device) { return device ? 101 : 0; }
int cudaGetLastError(void) { return 0; }
const char *cudaGetErrorString(int code) { return code == MEMORY ? "out of memory" : "not permitted"; }
int cudaDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 18 && getenv("EDGEAD_TEST_INTEGRATED") != NULL;
    return device;
}
int cudaStreamCreateWithFlags(void **stream, unsigned flags) { return *stream = malloc(8), flags == 1 ? 0 : 1; }
int cudaStreamDestroy(void *stream) { return free(stream), 0; }
int cudaStreamSynchronize(void *stream) { return stream && !recorded ? 0 : NOT_PERMITTED; }
int cudaMalloc(void **pointer, size_t size) {
    if (size > (size_t)1 << 40) return MEMORY;
    allocated++;
    *pointer = malloc(size);
    return 0;
}
int cudaFree(void *pointer) { return free(pointer), allocated--, 0; }
int cudaHostAlloc(void **pointer, size_t size, unsigned flags) { return flags == 2 ? cudaMalloc(pointer, size) : 1; }
int cudaFreeHost(void *pointer) { return cudaFree(pointer); }
int cudaHostGetDevicePointer(void **device, void *host, unsigned flags) { return *device = host, (int)flags; }
int cudaMemcpyAsync(void *target, const void *source, size_t size, int kind, void *stream) {
    if (!stream || (kind != 1 && kind != 2)) return 1;
    if (recorded) {
        if (recorded->count == MOST) return MEMORY;
        recorded->copies[recorded->count++] = (struct copy){target, source, size};
    } else {
        memcpy(target, source, size);
    }
    return 0;
}
int cudaStreamBeginCapture(void *stream, int mode) {
    if (!stream || mode != 1 || recorded) return NOT_PERMITTED;
    recorded = calloc(1, sizeof *recorded);
    broken = 0;
    return 0;
}
int cudaStreamEndCapture(void *stream, void **graph) {
    if (!stream || !recorded) return NOT_PERMITTED;
    *graph = broken ? NULL : recorded;
    if (broken) free(recorded);
    recorded = NULL;
    return broken ? INVALIDATED : 0;
}
int cudaGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags) {
    if (!graph || flags) return 1;
    *executable = malloc(sizeof(struct graph));
    memcpy(*executable, graph, sizeof(struct graph));
    return 0;
}
int cudaGraphDestroy(void *graph) { return graph ? (free(graph), 0) : 1; }
int cudaGraphExecDestroy(void *executable) { return free(executable), 0; }
int cudaGraphLaunch(void *executable, void *stream) {
    struct graph *graph = executable;
    for (int index = 0; index < graph->count; index++) {
        struct copy *each = &graph->copies[index];
        memcpy(each->target, each->source, each->size);
    }
    return stream ? 0 : 1;
}
