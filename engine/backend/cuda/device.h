/* The CUDA backend's own records. */
#ifndef TSR_CUDA_DEVICE_H
#define TSR_CUDA_DEVICE_H

#include "backend/backend.h"
#include "backend/cuda/driver.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/pack.h"

#include <pthread.h>

/* The kernels that are not convolutions. */
/* clang-format off */
#define TSR_CUDA_PASSES(X) \
    X(tsr_stats) X(tsr_reduce) X(tsr_set_range) X(tsr_requantise) X(tsr_norm) X(tsr_attention_f16) \
    X(tsr_attention_bf16) X(tsr_input) X(tsr_store)
/* clang-format on */
typedef enum tsr_cuda_pass {
#define X(name) PASS_##name,
    TSR_CUDA_PASSES(X)
#undef X
        TSR_CUDA_PASS_COUNT
} tsr_cuda_pass;
enum { TSR_CUDA_CONV_ELEMENTS = 4 };
extern const tsr_dtype tsr_cuda_element[TSR_CUDA_CONV_ELEMENTS]; /* inputs of convs */

/* Convs that several shapes take: 3x3, and the merged upsamplers' 2x2. */
typedef enum tsr_cuda_family { TSR_CUDA_3X3, TSR_CUDA_2X2, TSR_CUDA_FAMILIES } tsr_cuda_family;

/* Device memory of one VMM reservation. */
typedef struct tsr_cuda_block {
    CUdeviceptr at;
    size_t bytes;                        /* rounded up to the granularity; 0: none */
    size_t counted;                      /* as asked for, which is what plans count */
    CUmemGenericAllocationHandle handle; /* 0 once the mapping alone keeps it */
    bool mapped;
} tsr_cuda_block;

typedef struct tsr_cuda {
    tsr_backend base;
    CUdevice device;
    CUcontext context; /* the primary one */
    CUlibrary library;
    CUstream stream;
    CUkernel conv[TSR_CUDA_CONV_ELEMENTS][TSR_CONV_SHAPE_COUNT]; /* NULL: no such kernel */
    CUkernel pass[TSR_CUDA_PASS_COUNT];
    char name[96];
    int major, minor, sms;                                           /* compute capability; multiprocessors */
    bool exports;                                                    /* memory can be exported */
    CUexternalSemaphore lane, progress;                              /* shared timelines (backend.h); NULL: none */
    tsr_conv_shape tuned[TSR_CUDA_CONV_ELEMENTS][TSR_CUDA_FAMILIES]; /* TSR_CONV_SHAPE_COUNT: not known */
    bool tuned_read;                                                 /* what the cache folder knows */
    /* Held while host memory is pinned: for gigabytes that takes long, and the driver tells nobody what is free. */
    pthread_mutex_t pinning;
    atomic_llong room; /* bytes that were free and that were counted, when the driver was last asked */
    size_t total;      /* of the device */
} tsr_cuda;

bool tsr_cuda_fp8(const tsr_cuda *c); /* it multiplies e4m3 itself */
/* Makes the context the calling thread's. */
tsr_status tsr_cuda_enter(const tsr_cuda *c);

/* exported: for another API to import, through an fd of block->handle that the caller then releases. */
tsr_status tsr_cuda_block_create(const tsr_cuda *c, size_t bytes, bool exported, const char *what, tsr_cuda_block *out);
void tsr_cuda_block_destroy(tsr_cuda_block *b);
/* Pinned memory of the host, and where the device sees it. */
tsr_status tsr_cuda_pin(tsr_cuda *c, size_t bytes, void **host, CUdeviceptr *at);
void tsr_cuda_unpin(tsr_cuda *c, void *host); /* may be NULL */
/* Device memory that is free. While memory is pinned: as it was, less what was taken since. */
tsr_status tsr_cuda_memory_free(tsr_cuda *c, size_t *left);

/* slab.c */
tsr_status tsr_cuda_slab_alloc(tsr_backend *b, size_t bytes, tsr_slab *out);
void tsr_cuda_slab_free(tsr_backend *b, tsr_slab *s);
tsr_status tsr_cuda_slab_import(
    tsr_backend *b, tsr_handle handle, size_t bytes, size_t export_bytes, bool dedicated, tsr_slab *out);
tsr_status tsr_cuda_slab_read(tsr_backend *b, const tsr_slab *s, size_t at, size_t bytes, void *host);
tsr_status tsr_cuda_slab_write(tsr_backend *b, const tsr_slab *s, size_t at, size_t bytes, const void *host);

/* share.c: the only file that knows fds from NT handles. */
extern const CUmemAllocationHandleType tsr_cuda_handle_type;
extern const CUdevice_attribute tsr_cuda_exports; /* whether the device exports such handles */
void tsr_cuda_prop_exported(CUmemAllocationProp *prop);
void tsr_cuda_handle_close(tsr_handle handle);
typedef struct tsr_cuda_foreign { /* memory of the other API */
    CUexternalMemory memory;
    CUdeviceptr at;
} tsr_cuda_foreign;
tsr_status tsr_cuda_foreign_import(
    const tsr_cuda *c, tsr_handle handle, size_t bytes, bool dedicated, tsr_cuda_foreign *out);
void tsr_cuda_foreign_release(tsr_cuda_foreign *f);
tsr_status tsr_cuda_share(tsr_cuda *c, tsr_handle lane, tsr_handle progress);
void tsr_cuda_unshare(tsr_cuda *c);
/* On the stream. Nothing where nothing is shared, or for 0. */
tsr_status tsr_cuda_signal_lane(const tsr_cuda *c, uint64_t value);
tsr_status tsr_cuda_await_progress(const tsr_cuda *c, uint64_t value);

/* ---------------------------------------------------------------- a plan made ready */

/* What differs between two steps of a kind: pointers into these. */
typedef struct tsr_cuda_places {
    CUdeviceptr caches; /* of the tile's set */
    CUdeviceptr slot;
    CUdeviceptr input;
} tsr_cuda_places;

typedef enum tsr_cuda_moves {
    MOVES_NOT,
    MOVES_PAST,  /* conv.past = caches + from */
    MOVES_RANGE, /* set_range.before = caches + from */
    MOVES_CODES, /* requantise.codes = caches + to */
    MOVES_INPUT, /* input.in = input + from */
    MOVES_STORE, /* store.out = slot + to */
    MOVES_SAVE,  /* copy.to = caches + to */
    MOVES_LOAD,  /* copy.from = caches + from */
    MOVES_SHIFT, /* copy.to = caches + to, copy.from = caches + from */
} tsr_cuda_moves;

typedef struct tsr_cuda_copy {
    CUdeviceptr to, from;
    size_t bytes;
} tsr_cuda_copy;

/* What runs in order: the ops; transfers of caches that live on the host, each direction by itself, for a link carries
 * both at once. */
typedef enum tsr_cuda_chain { TSR_CUDA_OPS, TSR_CUDA_IN, TSR_CUDA_OUT, TSR_CUDA_CHAINS } tsr_cuda_chain;

/* One kernel launch or copy of a step. A transfer begins after the op's launch before it, and runs beside those that
 * follow. */
typedef struct tsr_cuda_launch {
    CUkernel kernel; /* NULL: a copy */
    unsigned grid[3], shared;
    union {
        tsr_conv_args conv;
        tsr_stats_args stats;
        tsr_reduce_args reduce;
        tsr_set_range_args set_range;
        tsr_requantise_args requantise;
        tsr_norm_args norm;
        tsr_attention_args attention;
        tsr_input_args input;
        tsr_store_args store;
        tsr_cuda_copy copy;
    } args;
    tsr_cuda_moves moves;
    size_t to, from; /* offsets, as `moves` says */
    tsr_cuda_chain chain;
    int awaits[TSR_CUDA_CHAINS]; /* of the chains of transfers those (indices of the list) to be done first; -1: none */
    int op;
    CUgraphNode node;
} tsr_cuda_launch;

typedef struct tsr_cuda_step {
    tsr_cuda_launch *launch; /* [launches], in order */
    int launches, room;
    CUgraph graph;
    CUgraphExec exec;
    tsr_cuda_places places; /* where the launches point now */
} tsr_cuda_step;

enum { TSR_CUDA_IN_FLIGHT = 4 }; /* steps handed to the device and not yet known to be done */

struct tsr_exec {
    tsr_cuda *cuda;
    const tsr_plan *plan;
    tsr_cuda_block packed; /* weights */
    tsr_cuda_block memory; /* arena and caches, one after the other */
    CUdeviceptr weights, arena, caches;
    tsr_conv_packing *packing; /* [plan->weights] */
    tsr_cuda_step step[TSR_STEP_COUNT];
    bool plain; /* launch by launch instead of graphs */

    /* Caches on the host: [plan->host_bytes], pinned; launch by launch each direction of their transfers has a stream
     * of its own, and streams wait for each other by the event. All 0 where there are none. */
    char *away_host;
    CUdeviceptr away;
    CUstream copies[TSR_CUDA_CHAINS]; /* [TSR_CUDA_OPS]: NULL, the device's own serves */
    CUevent meet;

    /* Pinned host memory: inputs [TSR_CUDA_IN_FLIGHT][input_bytes], then the flag. */
    char *host;
    CUdeviceptr host_at;
    size_t input_bytes;
    volatile int32_t *flag; /* 1 + an op that gave Inf or NaN; kernels write it */
    CUdeviceptr flag_at;
    atomic_bool warned;

    pthread_mutex_t lock; /* of the ring: step() and wait() run on different threads */
    struct tsr_cuda_ring {
        CUevent event;
        uint64_t value; /* reached with the event; 0: none yet */
    } ring[TSR_CUDA_IN_FLIGHT];
    int turn; /* of the ring */
};

/* autotune.c */
bool tsr_cuda_hopper(const tsr_cuda *c);
/* The kernel has what this shape needs of the GPU. */
bool tsr_cuda_has(const tsr_cuda *c, tsr_conv_shape shape, tsr_dtype input);
/* The shape that runs a conv: the fastest measured, else the first choice. TSR_CONV_SHAPE_COUNT: none takes it. */
tsr_conv_shape tsr_cuda_shape(const tsr_cuda *c, const tsr_kernel *k, tsr_dtype input);
/* Milliseconds that run() takes on the stream: once to warm up, then the mean of so many times. */
tsr_status tsr_cuda_time(const tsr_cuda *c, CUresult (*run)(void *ctx), void *ctx, int times, float *out);
/* product.c; as gemm_rate() */
double tsr_cuda_gemm_rate(tsr_backend *b, tsr_precision precision, int m, int n, int k);
/* Measures the choices of the plan's convs that were never measured on this GPU, where the backend has a place to keep
 * what it finds. Before weights are there: the arena and they hold anything. */
tsr_status tsr_cuda_autotune(tsr_exec *x);

/* Bytes of scratch an op's launches need between them, with the shape that needs most. */
size_t tsr_cuda_op_scratch(const tsr_cuda *c, const tsr_program *p, const tsr_op *op);
/* The launch of a conv alone, with the shape that its packing names. */
tsr_status tsr_cuda_bind_alone(tsr_exec *x, tsr_step step, int op, tsr_cuda_launch *out);
/* The launches of a step, all pointers but those that move filled in. */
tsr_status tsr_cuda_bind_step(tsr_exec *x, tsr_step step);
/* Folds, rounds or quantises, packs and uploads every kernel; and the norms' vectors. Nothing where those of the same
 * weights lie there, packed so already; NULL: none do. */
tsr_status tsr_cuda_weights(tsr_exec *x, const tsr_conv_packing *there);

tsr_status tsr_cuda_exec_create(tsr_exec **out, tsr_cuda *c, const tsr_plan *plan);
/* As the backend's turn. */
tsr_status tsr_cuda_exec_turn(tsr_exec **x, tsr_cuda *c, const tsr_plan *plan);
void tsr_cuda_exec_destroy(tsr_exec **x);
tsr_status tsr_cuda_exec_step(tsr_exec *x, const tsr_step_args *args);
tsr_status tsr_cuda_exec_wait(tsr_exec *x, uint64_t value);

#endif
