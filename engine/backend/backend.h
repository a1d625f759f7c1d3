/*
 * Backends run step programs on a device. They know the program and the plan's arithmetic, and of the outside world
 * only a slab to write finished tiles to; never Vulkan.
 */
#ifndef TSR_BACKEND_H
#define TSR_BACKEND_H

#include "plan/plan.h"

#include <stdatomic.h>

/* Memory that the backend writes and Vulkan reads. */
typedef enum tsr_slab_kind {
    TSR_SLAB_HOST,     /* host pages, 4096-aligned: imported by Vulkan, or copied */
    TSR_SLAB_EXPORTED, /* device memory that the backend exported */
    TSR_SLAB_IMPORTED, /* device memory that Vulkan exported and the backend imported */
} tsr_slab_kind;

typedef struct tsr_slab {
    tsr_slab_kind kind;
    size_t bytes;        /* as asked for */
    size_t export_bytes; /* as exported: rounded up to the device's granularity */
    void *host;          /* HOST: the memory; else NULL */
    uint64_t device;     /* device address; 0: not one of a device */
    tsr_handle handle;   /* EXPORTED: owned by whoever imports it; TSR_NO_HANDLE after */
    void *backend;       /* the backend's own record */
    void *exporter;      /* IMPORTED: the session's record of what Vulkan exported */
} tsr_slab;

typedef struct tsr_backend tsr_backend;
typedef struct tsr_exec tsr_exec; /* a plan made ready to run: memory allocated, weights packed */

/* One step of one tile. */
typedef struct tsr_step_args {
    tsr_step step;
    int cache_set;      /* 0 .. plan->cache_sets-1: which tile's caches */
    const float *input; /* f32 [in_frames][in_h][in_w][in_c], host; not needed after the call returns */
    tsr_slab *slab;
    size_t slot_at;       /* offset of the slot in the slab */
    int64_t *not_finite;  /* out, where the backend is not asynchronous: how many of the slot's numbers are NaN or
                             infinite. NULL: nobody asks */
    uint64_t ready_value; /* asynchronous backends: the lane's timeline reaches this when the slot is written or
                             the work has failed; values grow over the backend's life */
    uint64_t free_at;     /* shared timelines: the slot may be written once progress has reached this; 0: now */
} tsr_step_args;

/* Called around every op where set (trace, per-op times); may be called from the decode thread only. */
typedef void (*tsr_op_fn)(void *user, const tsr_program *p, int op, double begin, double end);

typedef struct tsr_backend_vtable {
    const char *name;  /* "cpu", "cuda" */
    bool asynchronous; /* step() returns before the work is done; ready_value says when */
    void (*destroy)(tsr_backend *b);
    void (*report)(tsr_backend *b, tsr_line_fn line, void *user);
    void (*target)(tsr_backend *b, tsr_target *out);
    /* Best precision here and, in why[], the reason. */
    tsr_precision (*best)(tsr_backend *b, const tsr_half *half, char why[128]);
    /* On failure *out is left as it was. */
    tsr_status (*slab_alloc)(tsr_backend *b, size_t bytes, tsr_slab *out);
    void (*slab_free)(tsr_backend *b, tsr_slab *s);
    /* Allocates exactly what the plan says, packs weights, makes primitives. Nothing is allocated after. */
    tsr_status (*prepare)(tsr_backend *b, const tsr_plan *plan, tsr_exec **out);
    /* The same with *x, of another plan of the same half, which lives until this returns: its packed weights are kept
     * where they would be packed alike. On failure *x is destroyed and NULL. May be NULL: nothing can be kept. */
    tsr_status (*turn)(tsr_backend *b, const tsr_plan *plan, tsr_exec **x);
    void (*exec_destroy)(tsr_backend *b, tsr_exec **x);
    tsr_status (*step)(tsr_backend *b, tsr_exec *x, const tsr_step_args *args);
    /* Copies a tile's caches between the device and a block of plan->cache_bytes on the host. */
    tsr_status (*park)(tsr_backend *b, tsr_exec *x, int cache_set, void *host);
    tsr_status (*unpark)(tsr_backend *b, tsr_exec *x, int cache_set, const void *host);
    /* Asynchronous backends: returns when the lane has reached ready_value, or with the step's error. Called from
     * another thread than step(). NULL where step() is synchronous. */
    tsr_status (*wait)(tsr_backend *b, tsr_exec *x, uint64_t ready_value);
    /* FLOP/s of the device's best plain matrix product [m][k] x [k][n] in this precision, measured now, with fewer rows
     * where that many change nothing: the ceiling that bench holds convolutions against. 0: unknown. */
    double (*gemm_rate)(tsr_backend *b, tsr_precision precision, int m, int n, int k);
    /* Bytes/s of a plain copy, by all threads, that reads half of `bytes` and writes the other half, measured now: what
     * bench holds ops against that multiply nothing. 0: unknown; NULL: always. */
    double (*copy_rate)(tsr_backend *b, size_t bytes);
    /* Bytes of device memory that are free now, beside what is held already: looked at while a decode runs, which goes
     * on with a smaller plan where they run out. NULL: nothing is known. */
    int64_t (*memory_free)(tsr_backend *b);
    /* Copies bytes out of a slab of device memory, once the lane has reached what wrote them. NULL where slabs are
     * host memory. */
    tsr_status (*slab_read)(tsr_backend *b, const tsr_slab *s, size_t at, size_t bytes, void *host);

    /* Sharing with the API that reads slabs; all NULL where slabs are host memory. An fd is taken in any case, an NT
     * handle stays the caller's.
     *
     * Device memory of export_bytes that the other API exported, as a slab; dedicated: it was allocated for one
     * buffer. */
    tsr_status (*slab_import)(
        tsr_backend *b, tsr_handle handle, size_t bytes, size_t export_bytes, bool dedicated, tsr_slab *out);
    /* The other way of slab_read, for probing; not waited for. */
    tsr_status (*slab_write)(tsr_backend *b, const tsr_slab *s, size_t at, size_t bytes, const void *host);
    /* Timeline semaphores of the other API: steps signal `lane` with their ready_value, and wait for `progress` to
     * reach free_at, all on the device. Held until unshare. */
    tsr_status (*share)(tsr_backend *b, tsr_handle lane, tsr_handle progress);
    void (*unshare)(tsr_backend *b);
    /* For probing, after what was begun so far: waits for progress (0: does not), then signals the lane (0: not). */
    tsr_status (*meet)(tsr_backend *b, uint64_t progress, uint64_t lane);
    /* The failure of anything that was begun, TSR_OK while there is none. Does not wait. */
    tsr_status (*check)(tsr_backend *b);
} tsr_backend_vtable;

struct tsr_backend {
    const tsr_backend_vtable *v; /* first member of every backend's own struct */
    atomic_bool *cancel;         /* looked at between ops, and within long ones; owned by the engine */
    tsr_op_fn on_op;
    void *on_op_user;
    uint8_t uuid[16]; /* of the CUDA device, for matching with Vulkan's */
    bool has_uuid;
    /* Set by the engine; NULL: nothing is kept. Small texts that took time to find, by name; read gives one malloc'd.
     */
    char *(*kept)(const char *name);
    void (*keep)(const char *name, const char *text);
    bool slabs_on_host; /* set by the engine where Vulkan cannot import what this backend exports */
};

typedef struct tsr_cpu_params {
    int threads;
    bool reference; /* plain C tier only */
} tsr_cpu_params;
tsr_status tsr_cpu_create(tsr_backend **out, const tsr_cpu_params *params);
/* TSR_ERR_UNSUPPORTED with one line where there is no driver, device or nvcc at build time. */
tsr_status tsr_cuda_create(tsr_backend **out, int index);

#endif
