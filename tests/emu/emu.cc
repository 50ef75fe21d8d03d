/* The emulated card: fibers for the threads of a block, memory in pages of its own, graphs as lists
 * of what was submitted. See tests/emu/cuda_runtime.h. */
#include "tests/emu/cuda_runtime.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#include <algorithm>
#include <map>
#include <mutex>
#include <vector>

namespace
{

enum { WARP = 32, SLOT = 64, STACK = 256 << 10, MAX_THREADS = 1024, SHARED_MAX = 227 << 10 };

/* ---- fibers ---------------------------------------------------------------------------------- */

enum state { READY, AT_BARRIER, IN_WARP, DONE };

struct pending_copy {
    void *dst;
    const void *src;
    size_t n;
    bool zero;
    int group;
};

struct fiber {
    void *sp;
    char *stack;
    state st;
    unsigned warp_gen; /* operations of its warp that it has taken part in */
    uint3 thread;
    std::vector<pending_copy> copies;
    int group; /* copies committed so far */
};

/* What the lanes of a warp have put down; two generations, for a lane that runs ahead by one. */
struct warp_box {
    alignas(SLOT) char slot[2][WARP * SLOT];
    unsigned arrived[2], mask[2];
    const char *tag[2];
    unsigned done[2]; /* lanes that have read; the box is free again when all have */
};

struct block_run {
    std::vector<fiber *> fibers;
    std::vector<warp_box> warps;
    int live, waiting;
    int current;
    void *main_sp;
    const std::function<void()> *kernel;
    const char *what;
    emu::place place;
    char *shared;
};

/* Several devices may be used, each by a thread of its own; the card does one thing at a time. */
std::recursive_mutex busy;
typedef std::lock_guard<std::recursive_mutex> turn;

block_run *running;
/* Never taken down: a leak checker looks for the fibers through it at the end. */
std::vector<fiber *> &pool = *new std::vector<fiber *>;

#if defined(__x86_64__)
extern "C" void emu_switch(void **save, void *to);
__asm__(".text\n.globl emu_switch\n.type emu_switch,@function\nemu_switch:\n"
        "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
        "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
        "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n"
        ".size emu_switch,.-emu_switch\n");
#else
#error "the emulated card needs x86-64"
#endif

void yield_to_main()
{
    fiber *f = running->fibers[(size_t)running->current];
    emu_switch(&f->sp, running->main_sp);
}

void fiber_main()
{
    (*running->kernel)();
    fiber *f = running->fibers[(size_t)running->current];
    if (!f->copies.empty())
        emu::die("%s: a thread ends with copies that it has not waited for", running->what);
    f->st = DONE;
    running->live--;
    for (;;)
        yield_to_main();
}

void arm(fiber *f)
{
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(f->stack, STACK); /* of frames that never returned */
#endif
    void **top = (void **)(f->stack + STACK - 64);
    *--top = nullptr; /* the stack is 16-byte aligned at a function's entry, less the return */
    *--top = (void *)fiber_main;
    for (int i = 0; i < 6; i++)
        *--top = nullptr;
    f->sp = top;
    f->st = READY;
    f->warp_gen = 0;
    f->group = 0;
    f->copies.clear();
}

fiber *fiber_new()
{
    fiber *f = new fiber();
    f->stack = (char *)mmap(nullptr, STACK, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (f->stack == MAP_FAILED)
        emu::die("no memory for a thread");
    return f;
}

/* ---- order of threads and blocks ---- */

int order_mode() /* 0: ascending, -1: descending, else a seed */
{
    const char *s = getenv("EMU_ORDER");
    return s == nullptr ? 0 : strcmp(s, "reverse") == 0 ? -1 : atoi(s);
}

std::vector<int> order_of(int n, unsigned salt)
{
    static const int mode = order_mode();
    std::vector<int> v((size_t)n);
    for (int i = 0; i < n; i++)
        v[(size_t)i] = mode == -1 ? n - 1 - i : i;
    if (mode > 0) {
        uint64_t s = (uint64_t)mode * 0x9E3779B97F4A7C15U + salt;
        for (int i = n - 1; i > 0; i--) {
            s = s * 6364136223846793005U + 1442695040888963407U;
            std::swap(v[(size_t)i], v[(size_t)((s >> 33) % (unsigned)(i + 1))]);
        }
    }
    return v;
}

/* ---- one block ---- */

bool warp_ready(const fiber *f, int index)
{
    const warp_box &w = running->warps[(size_t)index / WARP];
    unsigned g = (f->warp_gen - 1) & 1U;
    return (w.arrived[g] & w.mask[g]) == w.mask[g];
}

/* True when it ran. */
bool step(int i)
{
    fiber *f = running->fibers[(size_t)i];
    if (f->st == DONE || f->st == AT_BARRIER)
        return false;
    if (f->st == IN_WARP && !warp_ready(f, i))
        return false;
    f->st = READY;
    running->current = i;
    running->place.thread = f->thread;
    emu_switch(&running->main_sp, f->sp);
    return true;
}

void release_barrier()
{
    for (fiber *f : running->fibers)
        if (f->st == AT_BARRIER)
            f->st = READY;
    running->waiting = 0;
}

void run_block(unsigned salt)
{
    block_run &b = *running;
    std::vector<int> order = order_of((int)b.fibers.size(), salt);
    while (b.live > 0) {
        bool moved = false;
        for (int i : order)
            moved |= step(i);
        if (b.live > 0 && b.waiting == b.live) {
            release_barrier();
            moved = true;
        }
        if (!moved)
            emu::die(
                "%s: block (%u, %u, %u): threads wait for each other; %d live, %d at a barrier",
                b.what, b.place.block.x, b.place.block.y, b.place.block.z, b.live, b.waiting);
    }
}

/* ---- device memory --------------------------------------------------------------------------- */

enum { PAGE = 4096, GRAIN = 256 };
struct area {
    char *base;
    size_t len;
};
std::map<char *, area> areas; /* by the address given out */
size_t used, total = (size_t)64 << 30;

bool guarded()
{
    static const bool on = getenv("EMU_GUARD") != nullptr;
    return on;
}

/* With EMU_GUARD the host can touch device memory only while the card works. */
void open_memory(bool on)
{
    static int depth;
    if (!guarded() || (on ? depth++ : --depth) != 0)
        return;
    for (auto &a : areas)
        mprotect(a.second.base, a.second.len, on ? PROT_READ | PROT_WRITE : PROT_NONE);
}
} // namespace

/* ---- a card that is lost -------------------------------------------------------------------- */

static long kernels_run;

/* From then on every call says so, as CUDA's do. */
static cudaError_t lost()
{
    static const char *after = getenv("EMU_LOST");
    return after != nullptr && kernels_run > atol(after) ? cudaErrorLaunchFailure : cudaSuccess;
}

/* ---- what kernels see ------------------------------------------------------------------------ */

namespace emu
{

void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "emulated card: ");
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "\n");
    va_end(ap);
    abort();
}

place &here()
{
    return running->place;
}
void *dynamic_shared()
{
    return running->shared;
}
unsigned lane()
{
    return (unsigned)running->current % WARP;
}

void barrier()
{
    fiber *f = running->fibers[(size_t)running->current];
    f->st = AT_BARRIER;
    running->waiting++;
    yield_to_main();
}

const char *exchange(const char *tag, unsigned mask, const void *mine, size_t n)
{
    block_run &b = *running;
    fiber *f = b.fibers[(size_t)b.current];
    warp_box &w = b.warps[(size_t)b.current / WARP];
    unsigned me = lane(), g = f->warp_gen++ & 1U;
    /* Lanes that the block does not have cannot arrive. */
    size_t lanes = std::min<size_t>(WARP, b.fibers.size() - (size_t)b.current / WARP * WARP);
    if (lanes < WARP)
        mask &= (1U << lanes) - 1U;
    if ((mask >> me & 1U) == 0)
        die("%s: %s: lane %u is not in its own mask", b.what, tag, me);
    if (w.arrived[g] == 0 || w.arrived[g] == w.done[g]) {
        w.arrived[g] = w.done[g] = 0;
        w.mask[g] = mask;
        w.tag[g] = tag;
    }
    if (strcmp(w.tag[g], tag) != 0 || w.mask[g] != mask)
        die("%s: lanes of a warp are in different operations: %s (%08x) and %s (%08x)", b.what,
            w.tag[g], w.mask[g], tag, mask);
    if (n > 0)
        memcpy(w.slot[g] + SLOT * me, mine, n);
    w.arrived[g] |= 1U << me;
    f->st = IN_WARP;
    yield_to_main();
    w.done[g] |= 1U << me;
    return w.slot[g];
}

void async_copy(void *dst, const void *src, size_t n, bool zero)
{
    fiber *f = running->fibers[(size_t)running->current];
    f->copies.push_back({dst, src, n, zero, f->group});
}

void async_commit()
{
    running->fibers[(size_t)running->current]->group++;
}

void async_wait(int pending)
{
    fiber *f = running->fibers[(size_t)running->current];
    std::vector<pending_copy> keep;
    for (const pending_copy &c : f->copies) {
        if (c.group >= f->group - pending) {
            keep.push_back(c);
            continue;
        }
        if (c.zero)
            memset(c.dst, 0, c.n);
        else
            memcpy(c.dst, c.src, c.n);
    }
    f->copies.swap(keep);
}

void run(const char *what, dim3 grid, dim3 block, size_t smem, const std::function<void()> &kernel)
{
    size_t n = (size_t)block.x * block.y * block.z;
    if (n < 1 || n > MAX_THREADS || smem > SHARED_MAX || grid.x < 1 || grid.y < 1 || grid.z < 1 ||
        grid.y > 65535 || grid.z > 65535)
        die("%s: launch of [%u, %u, %u] blocks of [%u, %u, %u] threads with %zu bytes", what,
            grid.x, grid.y, grid.z, block.x, block.y, block.z, smem);
    turn mine(busy);
    kernels_run++;
    if (lost() != cudaSuccess)
        return;
    while (pool.size() < n)
        pool.push_back(fiber_new());
    static char *shared = (char *)aligned_alloc(1024, SHARED_MAX / 1024 * 1024 + 1024);
    block_run b = {};
    b.kernel = &kernel;
    b.what = what;
    b.shared = shared;
    b.place.block_dim = block;
    b.place.grid_dim = grid;
    running = &b;
    open_memory(true);
    int blocks = (int)(grid.x * grid.y * grid.z);
    for (int at : order_of(blocks, 17)) {
        unsigned i = (unsigned)at;
        b.place.block = {i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y};
        b.fibers.assign(pool.begin(), pool.begin() + (long)n);
        b.warps.assign((n + WARP - 1) / WARP, warp_box());
        b.live = (int)n;
        b.waiting = 0;
        memset(shared, 0xFF, smem);
        for (unsigned t = 0; t < n; t++) {
            arm(b.fibers[t]);
            b.fibers[t]->thread = {t % block.x, t / block.x % block.y, t / block.x / block.y};
        }
        run_block(i);
    }
    open_memory(false);
    running = nullptr;
}
} // namespace emu

/* ---- streams and graphs ---------------------------------------------------------------------- */

struct emu_graph {
    std::vector<std::function<void()>> work;
};
/* What was read from the card reaches the host when the host waits for it, not before. */
struct arrival {
    void *dst;
    std::vector<char> bytes;
};
struct emu_stream {
    emu_graph *capture;
    std::vector<arrival> due;
    size_t arrived; /* in all, so that an event can tell its own from later ones */
};
struct emu_event {
    timespec at;
    emu_stream *stream;
    size_t after; /* arrivals before it */
};

static void arrive(emu_stream *s, size_t upto)
{
    size_t n = upto > s->arrived ? std::min(upto - s->arrived, s->due.size()) : 0;
    for (size_t i = 0; i < n; i++)
        memcpy(s->due[i].dst, s->due[i].bytes.data(), s->due[i].bytes.size());
    s->due.erase(s->due.begin(), s->due.begin() + (long)n);
    s->arrived += n;
}

static thread_local emu_stream *capturing;

void emu::submit(std::function<void()> work)
{
    if (capturing != nullptr)
        capturing->capture->work.push_back(std::move(work));
    else
        work();
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
    *s = new emu_stream();
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    delete s;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    if (s->capture != nullptr)
        return cudaErrorInvalidValue;
    arrive(s, SIZE_MAX);
    return lost();
}
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode)
{
    if (capturing != nullptr)
        return cudaErrorInvalidValue;
    s->capture = new emu_graph();
    capturing = s;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g)
{
    if (capturing != s)
        return cudaErrorInvalidValue;
    *g = s->capture;
    s->capture = nullptr;
    capturing = nullptr;
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *e, cudaGraph_t g, unsigned long long)
{
    *e = new emu_graph(*g);
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t e, cudaStream_t)
{
    for (auto &w : e->work)
        w();
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t e)
{
    delete e;
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t g)
{
    delete g;
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    *e = new emu_event();
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    delete e;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    clock_gettime(CLOCK_MONOTONIC, &e->at);
    e->stream = s;
    e->after = s->arrived + s->due.size();
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    if (e->stream != nullptr)
        arrive(e->stream, e->after);
    return lost();
}
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned)
{
    return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b)
{
    *ms = (float)(b->at.tv_sec - a->at.tv_sec) * 1e3F +
          (float)(b->at.tv_nsec - a->at.tv_nsec) * 1e-6F;
    return cudaSuccess;
}

/* ---- memory ---------------------------------------------------------------------------------- */

cudaError_t cudaMalloc(void **p, size_t n)
{
    *p = nullptr;
    if (lost() != cudaSuccess)
        return lost();
    size_t grains = (n + GRAIN - 1) / GRAIN * GRAIN, len = (grains + PAGE - 1) / PAGE * PAGE;
    if (n == 0)
        return cudaSuccess;
    turn mine(busy);
    if (n > total - used)
        return cudaErrorMemoryAllocation;
    char *base = (char *)mmap(nullptr, len + PAGE, PROT_NONE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return cudaErrorMemoryAllocation;
    mprotect(base, len, PROT_READ | PROT_WRITE);
    char *at = base + (len - grains); /* what runs over the end meets a page that is not there */
    memset(at, 0xFF, grains);
    if (guarded())
        mprotect(base, len, PROT_NONE);
    areas[at] = {base, len};
    used += n;
    *p = at;
    return cudaSuccess;
}
cudaError_t cudaFree(void *p)
{
    if (p == nullptr)
        return cudaSuccess;
    turn mine(busy);
    auto a = areas.find((char *)p);
    if (a == areas.end())
        return cudaErrorInvalidValue;
    munmap(a->second.base, a->second.len + PAGE);
    used -= std::min(used, a->second.len);
    areas.erase(a);
    return cudaSuccess;
}
cudaError_t cudaHostAlloc(void **p, size_t n, unsigned)
{
    *p = malloc(n);
    return *p != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFreeHost(void *p)
{
    free(p);
    return cudaSuccess;
}
static void leave(void *dst, const void *src, size_t n, cudaStream_t s)
{
    turn mine(busy);
    open_memory(true);
    const char *from = (const char *)src;
    s->due.push_back({dst, std::vector<char>(from, from + n)});
    memset(dst, 0xFF, n);
    open_memory(false);
}
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t n, cudaMemcpyKind kind,
                            cudaStream_t s)
{
    if (lost() != cudaSuccess) /* nothing is queued on a lost card */
        return lost();
    if (kind == cudaMemcpyDeviceToHost) {
        emu::submit([=] { leave(dst, src, n, s); });
        return cudaSuccess;
    }
    emu::submit([=] {
        turn mine(busy);
        open_memory(true);
        memmove(dst, src, n);
        open_memory(false);
    });
    return cudaSuccess;
}
cudaError_t cudaMemcpy2DAsync(void *dst, size_t dpitch, const void *src, size_t spitch,
                              size_t width, size_t height, cudaMemcpyKind, cudaStream_t)
{
    emu::submit([=] {
        turn mine(busy);
        open_memory(true);
        for (size_t r = 0; r < height; r++)
            memmove((char *)dst + r * dpitch, (const char *)src + r * spitch, width);
        open_memory(false);
    });
    return lost();
}
cudaError_t cudaMemsetAsync(void *p, int v, size_t n, cudaStream_t)
{
    emu::submit([=] {
        turn mine(busy);
        open_memory(true);
        memset(p, v, n);
        open_memory(false);
    });
    return lost();
}

cudaError_t cudaMemset2DAsync(void *p, size_t pitch, int v, size_t width, size_t height,
                              cudaStream_t)
{
    emu::submit([=] {
        turn mine(busy);
        open_memory(true);
        for (size_t r = 0; r < height; r++)
            memset((char *)p + r * pitch, v, width);
        open_memory(false);
    });
    return lost();
}

/* ---- the card -------------------------------------------------------------------------------- */

const char *cudaGetErrorString(cudaError_t e)
{
    return e == cudaSuccess                 ? "no error"
           : e == cudaErrorMemoryAllocation ? "out of memory"
           : e == cudaErrorNoDevice         ? "no CUDA-capable device is detected"
           : e == cudaErrorLaunchFailure    ? "unspecified launch failure"
                                            : "invalid argument";
}
const char *cudaGetErrorName(cudaError_t e)
{
    return cudaGetErrorString(e);
}
cudaError_t cudaGetLastError(void)
{
    return lost();
}
cudaError_t cudaGetDeviceCount(int *n)
{
    *n = getenv("EMU_NO_CARD") != nullptr ? 0 : 1;
    return *n == 0 ? cudaErrorNoDevice : cudaSuccess;
}
cudaError_t cudaSetDevice(int)
{
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int)
{
    *p = {};
    snprintf(p->name, sizeof p->name, "emulated card");
    p->major = 9;
    p->multiProcessorCount = 4;
    p->totalGlobalMem = total;
    const char *shared = getenv("EMU_SHARED"); /* bytes, as on a smaller card */
    p->sharedMemPerBlockOptin =
        shared == nullptr ? (size_t)SHARED_MAX : std::min((size_t)atol(shared), (size_t)SHARED_MAX);
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *v)
{
    *v = 13000;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *v)
{
    *v = 13000;
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *free, size_t *all)
{
    *free = total - used;
    *all = total;
    return cudaSuccess;
}
