/* The calls of the CUDA driver and runtime that edgead makes, on the host, as strict as the real ones.

   Every address, handle and size is looked up, so that one that is wrong, freed or cut to 32 bits is an error. Their
   memory is mapped, because malloc's may lie below 4 GB, where cutting changes nothing. A stream does its work when it is waited for and not before: what is read without waiting is old.
   Recording follows the rules of stream capture: its thread modes, what is not permitted meanwhile, and what makes a
   recording invalid. With EDGEAD_TEST_EAGER set a stream works at once, for kernels that do not use streams. */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    INVALID = 1, MEMORY = 2, OLD_DRIVER = 35, NO_DEVICE = 101, HANDLE = 400, STATE = 401,
    UNSUPPORTED = 900, INVALIDATED = 901, ISOLATION = 905, CAPTURED_EVENT = 907, WRONG_THREAD = 908
};
enum kind { STREAM = 1, EVENT, GRAPH, EXECUTABLE, DEVICE, PINNED };
enum { GLOBAL, LOCAL, RELAXED };
enum { H2D = 1, D2H, D2D, BY_ADDRESS };

struct op { struct op *next; char *target; const char *source; size_t size; void (*call)(void *); void *data; struct object *waits; long until; };
struct object {
    struct object *next;
    enum kind kind;
    void *context;
    char *address; size_t size;                         /* memory */
    struct op *first, *last; long given, done;          /* a stream's work; a graph's */
    struct object *graph; pthread_t thread; int mode, broken; /* a stream's recording */
    struct object *stream; long ticket; int captured;   /* an event */
};

static pthread_mutex_t lock;
static struct object *objects, standard[2]; /* the default streams: handles 1 and 2 */
static int allocated, last_error, primary, other; /* the last two are contexts */
static __thread void *current;
static void *context(void) { return current ? current : &primary; }
__attribute__((constructor)) static void start(void) {
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_RECURSIVE); /* work that a stream does may call us again */
    pthread_mutex_init(&lock, &kind);
    standard[0].kind = standard[1].kind = STREAM;
}
static int leave(int code) { if (code) last_error = code; pthread_mutex_unlock(&lock); return code; }
#define ENTER pthread_mutex_lock(&lock)

static void *map(size_t size) { return mmap(NULL, size + !size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }
static void unmap(void *address, size_t size) { munmap(address, size + !size); }
static struct object *make(enum kind kind) {
    struct object *each = map(sizeof *each);
    each->kind = kind, each->context = context(), each->next = objects, objects = each;
    return each;
}
static struct object *find(const void *handle, enum kind kind) {
    if (kind == STREAM && (uintptr_t)handle <= 2) return &standard[(uintptr_t)handle == 2];
    for (struct object *each = objects; each; each = each->next)
        if (each == handle && each->kind == kind) return each->context == context() ? each : NULL;
    return NULL;
}
static struct object *memory(const void *address, size_t size) {
    const char *start = address;
    for (struct object *each = objects; each; each = each->next)
        if (each->address && start >= each->address && start < each->address + each->size)
            return start + size <= each->address + each->size ? each : NULL;
    return NULL;
}
static void forget(struct object *old) {
    for (struct object **each = &objects; *each; each = &(*each)->next)
        if (*each == old) { *each = old->next; break; }
    while (old->first) { struct op *gone = old->first; old->first = gone->next; free(gone); }
    unmap(old, sizeof *old);
}

/* Recording */
static int is_mine(struct object *stream) { return pthread_equal(stream->thread, pthread_self()); }
static int unsafe(void) {
    int refused = 0;
    for (struct object *each = objects; each; each = each->next)
        if (each->kind == STREAM && each->graph && (each->mode == GLOBAL || (each->mode == LOCAL && is_mine(each))))
            each->broken = 1, refused = UNSUPPORTED;
    return refused;
}
static void append(struct object *to, struct op op) {
    struct op *copy = malloc(sizeof op);
    *copy = op, copy->next = NULL;
    if (to->first) to->last->next = copy; else to->first = copy;
    to->last = copy, to->given++;
}
static void run(struct object *stream, long until) {
    while (stream->first && stream->done < until) {
        struct op *op = stream->first;
        stream->first = op->next, stream->done++;
        if (op->waits) run(op->waits, op->until);
        if (op->size) memmove(op->target, op->source, op->size);
        if (op->call) op->call(op->data);
        free(op);
    }
}
static int give(struct object *stream, struct op op) {
    if (stream->graph) { append(stream->graph, op); return 0; }
    append(stream, op);
    if (getenv("EDGEAD_TEST_EAGER")) run(stream, stream->given);
    return 0;
}

/* For the tests */
int edgead_test_allocated(void) { return allocated; }
void edgead_test_break_the_recording(void) {
    for (struct object *each = objects; each; each = each->next) if (each->graph) each->broken = 1;
}
void edgead_test_use_another_context(void) { current = &other; } /* as pycuda.autoinit does */
int edgead_test_is_in_another_context(void) { return current == &other; }

/* The driver */
int cuInit(unsigned flags) { return flags ? INVALID : 0; }
int cuDeviceGetCount(int *count) { return *count = 1, 0; }
int cuDeviceGet(int *device, int number) { return *device = number, 0; }
int cuDeviceGetName(char *name, int length, int device) { return strncpy(name, "Host", length), device; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 8 : attribute == 76 ? 7 : 0;
    return device;
}
int cuDriverGetVersion(int *version) { return *version = 12060, 0; }
int cuCtxGetCurrent(void **found) { return *found = current, 0; }
int cuCtxSetCurrent(void *wanted) { return current = wanted, 0; }
int cuPointerGetAttribute(void *value, int attribute, void *address) {
    ENTER;
    struct object *found = memory(address, 1);
    if (!found) return leave(INVALID);
    if (attribute == 1) *(void **)value = found->context;
    else if (attribute == 2) *(unsigned *)value = found->kind == DEVICE ? 2 : 1;
    else if (attribute == 9) *(int *)value = 0;
    else return leave(INVALID);
    return leave(0);
}

/* The runtime */
#ifdef TOO_NEW
int cudaGetDeviceCount(int *count) { return *count = 0, OLD_DRIVER; }
#else
int cudaGetDeviceCount(int *count) { return *count = 1, 0; }
#endif
int cudaSetDevice(int device) { return device ? NO_DEVICE : (current = &primary, 0); }
int cudaGetLastError(void) { int code = last_error; return last_error = 0, code; }
const char *cudaGetErrorString(int code) {
    switch (code) {
        case INVALID: return "invalid argument";
        case MEMORY: return "out of memory";
        case HANDLE: return "invalid resource handle";
        case UNSUPPORTED: return "operation not permitted when stream is capturing";
        case INVALIDATED: return "operation failed due to a previous error during capture";
        case ISOLATION: return "dependency created on uncaptured work in another stream";
        case WRONG_THREAD: return "attempt to terminate a thread-local capture sequence from another thread";
        default: return "not permitted";
    }
}
int cudaDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 18 && getenv("EDGEAD_TEST_INTEGRATED") != NULL;
    return device;
}
int cudaStreamCreateWithFlags(void **stream, unsigned flags) {
    ENTER;
    if (flags > 1) return leave(INVALID);
    *stream = make(STREAM);
    return leave(0);
}
int cudaStreamDestroy(void *handle) {
    ENTER;
    struct object *stream = find(handle, STREAM);
    if (!stream || stream == standard || stream == standard + 1) return leave(HANDLE);
    run(stream, stream->given);
    if (stream->graph) forget(stream->graph);
    for (struct object *each = objects; each; each = each->next) {
        if (each->stream == stream) each->stream = NULL;
        for (struct op *op = each->first; op; op = op->next) if (op->waits == stream) op->waits = NULL;
    }
    forget(stream);
    return leave(0);
}
int cudaStreamSynchronize(void *handle) {
    ENTER;
    struct object *stream = find(handle, STREAM);
    if (!stream) return leave(HANDLE);
    if (stream->graph) return stream->broken = 1, leave(UNSUPPORTED);
    run(stream, stream->given);
    return leave(0);
}
int cudaLaunchHostFunc(void *handle, void (*call)(void *), void *data) {
    ENTER;
    struct object *stream = find(handle, STREAM);
    if (!stream) return leave(HANDLE);
    return leave(call ? give(stream, (struct op){.call = call, .data = data}) : INVALID);
}

int cudaEventCreateWithFlags(void **event, unsigned flags) {
    ENTER;
    if (flags > 7) return leave(INVALID);
    *event = make(EVENT);
    return leave(0);
}
int cudaEventDestroy(void *handle) {
    ENTER;
    struct object *event = find(handle, EVENT);
    if (!event) return leave(HANDLE);
    forget(event);
    return leave(0);
}
int cudaEventRecord(void *handle, void *where) {
    ENTER;
    struct object *event = find(handle, EVENT), *stream = find(where, STREAM);
    if (!event || !stream) return leave(HANDLE);
    event->captured = stream->graph != NULL;
    event->stream = stream, event->ticket = stream->given;
    return leave(0);
}
int cudaEventSynchronize(void *handle) {
    ENTER;
    struct object *event = find(handle, EVENT);
    if (!event) return leave(HANDLE);
    if (event->captured) return leave(CAPTURED_EVENT);
    if (event->stream) run(event->stream, event->ticket);
    return leave(0);
}
int cudaStreamWaitEvent(void *handle, void *on, unsigned flags) {
    ENTER;
    struct object *stream = find(handle, STREAM), *event = find(on, EVENT);
    if (!stream || !event) return leave(HANDLE);
    if (flags) return leave(INVALID);
    if (stream->graph && !event->captured) return stream->broken = 1, leave(ISOLATION);
    if (!event->stream) return leave(0);
    return leave(give(stream, (struct op){.waits = event->stream, .until = event->ticket}));
}

static int allocate(void **pointer, size_t size, enum kind kind) {
    int refused = unsafe();
    if (refused) return refused;
    if (size > (size_t)1 << 40) return MEMORY;
    struct object *each = make(kind);
    each->size = size, each->address = map(size), allocated++;
    memset(each->address, 0xA5, size); /* nothing is cleared */
    *pointer = each->address;
    return 0;
}
static int release(void *pointer, enum kind kind) {
    int refused = unsafe();
    if (refused) return refused;
    struct object *each = memory(pointer, 1);
    if (!pointer) return 0;
    if (!each || each->kind != kind || each->address != pointer) return INVALID;
    for (struct object *stream = objects; stream; stream = stream->next)
        if (stream->kind == STREAM) run(stream, stream->given); /* it waits for the device */
    unmap(each->address, each->size), allocated--;
    forget(each);
    return 0;
}
int cudaMalloc(void **pointer, size_t size) { ENTER; return leave(allocate(pointer, size, DEVICE)); }
int cudaFree(void *pointer) { ENTER; return leave(release(pointer, DEVICE)); }
int cudaHostAlloc(void **pointer, size_t size, unsigned flags) {
    ENTER;
    return leave(flags > 7 ? INVALID : allocate(pointer, size, PINNED));
}
int cudaFreeHost(void *pointer) { ENTER; return leave(release(pointer, PINNED)); }
int cudaHostGetDevicePointer(void **device, void *host, unsigned flags) {
    ENTER;
    struct object *found = memory(host, 1);
    if (!found || found->kind != PINNED || flags) return leave(INVALID);
    *device = host;
    return leave(0);
}
int cudaMemcpyAsync(void *target, const void *source, size_t size, int kind, void *handle) {
    ENTER;
    struct object *stream = find(handle, STREAM), *to = memory(target, size), *from = memory(source, size);
    if (!stream) return leave(HANDLE);
    if (kind < H2D || kind > BY_ADDRESS || !target || !source) return leave(INVALID);
    if ((!to && memory(target, 1)) || (!from && memory(source, 1))) return leave(INVALID); /* beyond the end */
    int to_device = kind == H2D || kind == D2D, from_device = kind == D2H || kind == D2D;
    if ((to_device && !to) || (from_device && !from)) return leave(INVALID);
    if (stream->graph && (!to || !from)) return stream->broken = 1, leave(UNSUPPORTED); /* pageable */
    struct op op = {.target = target, .source = source, .size = size};
    if (!from) { /* pageable memory is read before the call returns */
        run(stream, stream->given);
        return memcpy(target, source, size), leave(0);
    }
    give(stream, op);
    if (!to) run(stream, stream->given);
    return leave(0);
}

int cudaStreamBeginCapture(void *handle, int mode) {
    ENTER;
    struct object *stream = find(handle, STREAM);
    if (!stream) return leave(HANDLE);
    if (stream == standard) return leave(UNSUPPORTED);
    if (mode < GLOBAL || mode > RELAXED) return leave(INVALID);
    if (stream->graph) return leave(STATE);
    stream->graph = make(GRAPH), stream->thread = pthread_self(), stream->mode = mode, stream->broken = 0;
    return leave(0);
}
int cudaStreamEndCapture(void *handle, void **graph) {
    ENTER;
    struct object *stream = find(handle, STREAM);
    *graph = NULL;
    if (!stream) return leave(HANDLE);
    if (!stream->graph) return leave(STATE);
    if (stream->mode != RELAXED && !is_mine(stream)) return stream->broken = 1, leave(WRONG_THREAD);
    struct object *recorded = stream->graph;
    stream->graph = NULL;
    if (stream->broken) return forget(recorded), leave(INVALIDATED);
    *graph = recorded;
    return leave(0);
}
int cudaGraphInstantiateWithFlags(void **executable, void *handle, unsigned long long flags) {
    ENTER;
    struct object *graph = find(handle, GRAPH);
    if (!graph || flags) return leave(INVALID);
    struct object *each = make(EXECUTABLE);
    for (struct op *op = graph->first; op; op = op->next) append(each, *op);
    *executable = each;
    return leave(0);
}
static int destroy(void *handle, enum kind kind) {
    ENTER;
    struct object *each = find(handle, kind);
    if (!each) return leave(INVALID);
    forget(each);
    return leave(0);
}
int cudaGraphDestroy(void *graph) { return destroy(graph, GRAPH); }
int cudaGraphExecDestroy(void *executable) { return destroy(executable, EXECUTABLE); }
int cudaGraphLaunch(void *executable, void *handle) {
    ENTER;
    struct object *graph = find(executable, EXECUTABLE), *stream = find(handle, STREAM);
    if (!graph) return leave(INVALID);
    if (!stream) return leave(HANDLE);
    for (struct op *op = graph->first; op; op = op->next) give(stream, *op);
    return leave(0);
}
