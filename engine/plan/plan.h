/*
 * The plan: what will be computed, in which pieces, and where every byte of it lives. Pure arithmetic, made before
 * anything is allocated; backends allocate exactly what it says.
 *
 *     total = weights + arena + caches (resident) + slots + frames
 */
#ifndef TSR_PLAN_H
#define TSR_PLAN_H

#include "model/program.h"
#include "plan/spans.h"

/* What the planner must know of a backend; filled by the backend. The planner never names one. */
typedef struct tsr_target {
    const char *name;      /* "cpu (oneDNN)", for the report */
    bool join_heads;
    size_t align;          /* of every buffer in the arena */
    int64_t memory_free, memory_total; /* bytes; 0: unknown */
    bool host_is_device;   /* a CPU: host caches cost the same memory */
    int64_t host_free;
    double flops_f32, flops_16, flops_8; /* sustained rates, FLOP/s; 0: unknown */
    double bandwidth, link_bandwidth;    /* bytes/s: device memory; host link */
    /* Bytes of a kernel as the backend keeps it (packed weights and biases), for inputs of this type. */
    size_t (*kernel_bytes)(void *ctx, const tsr_kernel *k, tsr_dtype input);
    /* Scratch the backend needs while it runs this op; the plan takes the largest. */
    size_t (*op_scratch)(void *ctx, const tsr_program *p, const tsr_op *op);
    void (*numerics)(void *ctx, tsr_precision wanted, const tsr_half *half, tsr_numerics *out);
    void *ctx;
} tsr_target;

typedef struct tsr_axis { /* one axis of the tiling */
    int tiles;
    tsr_span *latent; /* [tiles], in latents: what is decoded */
    tsr_span *pixel;  /* [tiles], in output pixels */
    float *weight;    /* [tiles][pixels of a tile] */
} tsr_axis;

struct tsr_plan {
    tsr_plan_info info;
    tsr_plan_params params;
    const tsr_half *half;
    tsr_axis y, x;
    int tile_h, tile_w; /* latents; all tiles are equal */

    tsr_program *program[TSR_STEP_COUNT]; /* NULL where the video has no such step */
    size_t *buffer_at[TSR_STEP_COUNT];    /* [buffers], offset in the arena */
    size_t arena_bytes, arena_bound;      /* and the lower bound: the largest live set */
    size_t scratch_at, scratch_bytes;     /* part of the arena */
    size_t *cache_at;                     /* [caches], offset in the cache block of one tile */
    size_t cache_bytes;                   /* of one tile */
    int cache_sets;                       /* tiles whose caches exist at once */
    bool caches_on_host;
    size_t weight_bytes;

    int slots;              /* in the ring */
    size_t slot_bytes;      /* [out_frames][3][tile rows][tile columns] of slot_dtype */
    tsr_dtype slot_dtype;
    int frames_in_flight;   /* frame accumulators, [3][height][width] of frame_dtype each */
    size_t frame_bytes;
    tsr_dtype frame_dtype;

    int first_latent, end_latent; /* decoded; output frames outside params are dropped */
    char why[256], runner_up[256];
};

tsr_status tsr_plan_make(tsr_plan **out, const tsr_half *half, const tsr_target *target, const tsr_extent *extent, const tsr_plan_params *params);

/* Output frames of latent frame t: 1 for the first, 4 for others (time_factor). */
static inline int tsr_frames_of_latents(int time_factor, int latents) {
    return latents < 1 ? 0 : time_factor * (latents - 1) + 1;
}

#endif
