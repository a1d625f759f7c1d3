/*
 * The plan: what will be computed, in which pieces, and where every byte of it lives. Pure arithmetic, made before
 * anything is allocated; backends allocate exactly what it says.
 *
 *     total = weights + arena + caches (cache_sets tiles) + slots + frames
 *
 * The order of work is the same in all modes:
 *
 *     for every segment of latents
 *         for every tile, row by row
 *             bring back its caches where they are parked
 *             for every latent of the segment: one step, one slot
 *             park its caches
 *         the segment's frames are whole
 *
 * Untiled is one tile and segments of one latent; exact tiles are bands of rows within each step of it (program.h).
 * Plans of an encoder are the same the other way round: a step takes the pixels of one latent, and what is in flight
 * are latents, blended in latents on the host, in f32.
 */
#ifndef TSR_PLAN_H
#define TSR_PLAN_H

#include "model/program.h"
#include "plan/spans.h"

/* Which blocks of a half keep their inputs wide in a mode of 8 bits; the session's, chosen by what was measured. */
typedef struct tsr_mix {
    uint64_t wide;   /* bit i: block i. Blocks from MOST_BLOCKS on are all alike: 8 bits */
    double quality;  /* PSNR that was to be held, dB; 0: none was */
    double expected; /* by what was measured; INFINITY where nothing is rounded; 0: not measured */
    char why[128];   /* this precision, where nobody named one; "" else */
    bool unmeasured; /* it is not the fastest, of which nobody knows what it loses; why says so */
} tsr_mix;
enum { TSR_MIX_BLOCKS = 64 };

/* What the planner must know of a backend; filled by the backend, which must outlive the plans made from it.
 * The planner never names one. */
typedef struct tsr_target {
    const char *name; /* "cpu (oneDNN)", for the report */
    bool join_heads;
    size_t align;                        /* of every buffer in the arena */
    int64_t memory_free, memory_total;   /* bytes; 0: unknown */
    bool host_is_device;                 /* a CPU: what lies on the host is taken from the same memory */
    bool norm_in_place;                  /* NORM may write where it reads, where types agree and the input ends there */
    bool bands;                          /* runs programs in bands: TSR_MODE_EXACT */
    bool streams;                        /* runs plans whose caches live on the host (host_at, move_at below) */
    int64_t host_free;                   /* 0: unknown */
    double flops_f32, flops_16, flops_8; /* sustained rates, FLOP/s; 0: unknown */
    double bandwidth, link_bandwidth;    /* bytes/s: device memory; host link */
    /* Bytes of a kernel as the backend keeps it (packed weights and biases), for inputs of this type. */
    size_t (*kernel_bytes)(void *ctx, const tsr_kernel *k, tsr_dtype input);
    /* Scratch the backend needs while it runs this op. NULL: none ever. */
    size_t (*op_scratch)(void *ctx, const tsr_program *p, const tsr_op *op);
    void (*numerics)(void *ctx, tsr_precision wanted, const tsr_half *half, tsr_numerics *out);
    void *ctx;
    tsr_mix mix; /* not the backend's: what the session wants of it; zero: none */
} tsr_target;

typedef struct tsr_axis { /* one axis of the tiling */
    int tiles;
    tsr_span *latent; /* [tiles], in latents: what is decoded */
    tsr_span *pixel;  /* [tiles], in output pixels */
    float *weight;    /* [tiles][pixels of a tile]; of an encoder [tiles][latents of a tile] */
} tsr_axis;

/* A kernel in the weight block. All steps that use it share it. */
typedef struct tsr_plan_weight {
    const tsr_kernel *kernel; /* of one of the programs */
    tsr_dtype input;
    size_t at, bytes; /* bytes: as kernel_bytes() says */
} tsr_plan_weight;

/* One way to decode that was weighed. */
typedef struct tsr_candidate {
    tsr_mode mode;
    int tile_h, tile_w, rows, columns; /* tiles in latents */
    int slice_level, band, page_level; /* as in tsr_program_params */
    int64_t room, reserve;             /* offloaded: for arena and resident caches together; what of it is kept for
                                          transfers in flight */
    int segment, cache_sets, parked_sets, frames; /* as in tsr_plan */
    tsr_plan_bytes bytes;                         /* the arena's are the lower bound; all exact for the chosen */
    double seconds, transfer;                     /* by the roofline, and what of it moves caches: for comparing */
    bool fits;
} tsr_candidate;
enum { TSR_RECIPE_TEXT = 640 }; /* plan/recipe.h */
enum { TSR_MOST_CANDIDATES = 3 * (TSR_MAX_LEVELS + 1) + 5 };

struct tsr_plan {
    tsr_plan_info info;
    tsr_plan_params params;
    tsr_target target;
    tsr_numerics numerics;
    const tsr_half *half;
    tsr_axis y, x;
    int tile_h, tile_w; /* latents; all tiles are equal */
    int slice_level, band, page_level;

    tsr_program *program[TSR_STEP_COUNT]; /* NULL where the video has no such step */

    /* The weight block: kernels, then norms. */
    size_t weight_bytes;
    int weights;
    tsr_plan_weight *weight;
    int *weight_of[TSR_STEP_COUNT]; /* [kernels of the program], index into weight */
    size_t *norm_at;                /* [layers]: gamma [c], then beta [c], f32; SIZE_MAX where the layer is no norm */

    /* The arena: one block, shared by the steps. */
    size_t arena_bytes, arena_bound;    /* and the lower bound: the largest live set */
    size_t *buffer_at[TSR_STEP_COUNT];  /* [buffers], offset in the arena; of paged ones in the host block */
    size_t *scratch_at[TSR_STEP_COUNT]; /* [ops], offset in the arena of op_scratch() bytes; SIZE_MAX where none */

    /* Caches. A video of one latent has none: cache_at is NULL, and CACHE_SAVE is not to be run. */
    size_t *cache_at;   /* [caches], offset in the cache block of one tile; SIZE_MAX: lives on the host */
    size_t cache_bytes; /* of one tile */
    int cache_sets;     /* tiles whose caches exist on the device at once: 0, 1 or all. Tile i uses set
                           i % cache_sets */
    int parked_sets;    /* 0, or all tiles: blocks of cache_bytes on the host, between a tile's segments */

    /* Offloaded plans (one tile, programs with joined heads): caches that live on the host, in a block that the
     * backend allocates. CACHE_LOAD is a transfer straight into the head, which may begin before op move_at[] (at most
     * the load itself) and is waited for at the load; CACHE_SAVE is a transfer out that begins there and must be done
     * before op move_at[] (more than the save; at most the number of ops: then, before the next step's op 0). A
     * transfer in also waits for the one that last saved the same cache. */
    size_t *host_at;   /* [caches], offset in the host block; SIZE_MAX: lives on the device. NULL: none does not */
    size_t host_bytes; /* of the host block. In bands: what levels in bands remember, which ops load and save there
                          row by row, then the paged frames of a step */
    int *move_at[TSR_STEP_COUNT]; /* [ops]; -1 where nothing moves. NULL in other plans */

    int slots;         /* in the ring */
    size_t slot_bytes; /* [out_frames][3][tile rows][tile columns] of slot_dtype, rounded up to whole pages; of an
                          encoder [2Z][tile rows][tile columns] */
    tsr_dtype slot_dtype;
    int frames_in_flight; /* frame accumulators, [3][height][width] of frame_dtype each: the most wanted output
                             frames that a segment has; of an encoder latents, [2Z][rows][columns] */
    size_t frame_bytes;
    tsr_dtype frame_dtype;

    /* Latents decoded: [first, end), as if the video began at first. Output frames outside
     * [params.first_frame, params.end_frame) are dropped; those before may be wrong, because the first latent is not
     * the video's (it lies as far back as causality sees). */
    int first_latent, end_latent;
    int segment; /* latents */
    char why[256], runner_up[256], numbers[512], recipe[TSR_RECIPE_TEXT];
    int candidates; /* the best of each kind, the chosen one first */
    tsr_candidate candidate[TSR_MOST_CANDIDATES];

    struct tsr_engine *engine; /* the session's: what the plan was made for, and keeps alive */
};

/* The budget is params.budget, or its share of all device memory, or the free memory less 10%; without any of these
 * there is none. TSR_ERR_BUDGET names the bytes that would be needed. */
tsr_status tsr_plan_make(tsr_plan **out, const tsr_half *half, const tsr_target *target, const tsr_extent *extent,
    const tsr_plan_params *params);
/* Frees what tsr_plan_make made. (tsr_plan_create and tsr_plan_destroy of the public header are the session's, which
 * adds the engine; tsr_plan_get_info and tsr_plan_text live here.) */
void tsr_plan_free(tsr_plan **p);
/* Both have the same kernels and norms at the same places of the weight block. */
bool tsr_plan_same_weights(const tsr_plan *a, const tsr_plan *b);

/* Output frames of the first `latents` latents: 1 for the first, time_factor for each later one. */
static inline int tsr_frames_of_latents(int time_factor, int latents) {
    return latents < 1 ? 0 : time_factor * (latents - 1) + 1;
}
/* The step that decodes (or makes) latent t where `first` was the first to be decoded. Encoders know no second. */
static inline tsr_step tsr_plan_step_since(const tsr_plan *p, int first, int t) {
    int seen = t - first;
    return seen == 0 ? TSR_STEP_FIRST : seen == 1 && !p->half->encodes ? TSR_STEP_SECOND : TSR_STEP_LATER;
}
static inline tsr_step tsr_plan_step(const tsr_plan *p, int t) {
    return tsr_plan_step_since(p, p->first_latent, t);
}
/* Latents before t that an output frame of t depends on; 37 for the published decoder. */
int tsr_lookback(const tsr_half *decoder);
/* The latent to begin at so that output frames from `frame` on are, to the bit, those of the plan's whole decode: the
 * look-back before it, from the begin of a segment; the plan's first where codes have ranges that remember everything
 * before. */
int tsr_plan_begin(const tsr_plan *p, int64_t frame);

#endif
