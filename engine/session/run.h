/* One decode in progress: what its stages share and who owns what. */
#ifndef TSR_RUN_H
#define TSR_RUN_H

#include "session/finite.h"
#include "session/flow.h"
#include "session/session.h"
#include "session/trace.h"

/* Whole frames between Vulkan and the writer: one being written, one being read back. As many as
 * tsr_vk keeps. */
enum { TSR_PICTURES = 2 };
/* Threads of the trace. */
enum { TSR_THREAD_DECODE = 1, TSR_THREAD_VULKAN, TSR_THREAD_WRITER };

typedef struct tsr_run_slot { /* a step's result, on its way to the blend */
    int tile, latent;
    uint64_t ready_value; /* of the backend's lane */
    uint64_t free_at;     /* shared timelines: Vulkan's progress when what was here before is read */
} tsr_run_slot;

typedef struct tsr_picture { /* a resolved frame, on its way to the writer */
    int64_t index;
    const void *data; /* Vulkan's read-back memory */
} tsr_picture;

/* One stretch: the frames that one plan decodes. Most decodes are a single one; where a plan cannot
 * be held to, another goes on after the last frame given out (decode.c). */
typedef struct tsr_run {
    tsr_engine *e;
    const tsr_plan *plan;
    const tsr_latent *z;
    const tsr_decode_params *params;
    tsr_trace *trace;
    int64_t first, end; /* output frames wanted */
    int first_latent;   /* that is decoded */
    int64_t given;      /* by the stretches before */
    double least_share; /* of the work, as told before: it never falls */
    int width, height;  /* of the output */
    size_t picture_bytes;

    tsr_flow flow;
    tsr_ring slots, pictures;
    tsr_run_slot *slot; /* [plan->slots] */
    tsr_picture picture[TSR_PICTURES];
    tsr_slab slab;
    pthread_t vulkan_thread, writer_thread;
    bool vulkan_runs, writer_runs;

    /* the decode stage's */
    tsr_exec *exec;
    tsr_finite finite;
    char *parked;                       /* [plan->parked_sets][plan->cache_bytes] */
    float *frame, *tile;                /* latents: [h][w][c] whole, and of one tile */
    double begin, steps_begin, told;    /* times: of the call, of the first step, of the last on_progress */
    double balance;                     /* FLOPs in the time that a byte takes to memory */
    double step_work[TSR_STEP_COUNT];   /* FLOPs, or what could be computed while bytes move */
    double work, work_before, work_all; /* done, done before the step in hand, in all */
    double load, prepare, decode;
    double looked; /* at the memory that is free: when */
    bool watches;  /* nobody gave a budget: it is what is free, and may fall */

    /* the Vulkan stage's */
    tsr_vk_slab *vk_slab;
    bool shared; /* no host wait between decode and blend: e->lane and Vulkan's progress say when */
    tsr_vk_frames *frames;
    int64_t frame_bytes, vk_peak; /* of Vulkan's memory: frames; all */
    double blend;

    /* the writer's, read by the decode stage with the flow's lock */
    int64_t written;
    bool refused; /* on_frame failed: that is no reason to try again */
    double write;
} tsr_run;

static inline int tsr_run_tiles(const tsr_plan *p) {
    return p->y.tiles * p->x.tiles;
}

static inline tsr_step tsr_run_step(const tsr_run *r, int t) {
    return tsr_plan_step_since(r->plan, r->first_latent, t);
}

double tsr_run_op_work(const tsr_run *r, const tsr_program *p, const tsr_op *op);
/* Runs the stages to their end. The failure's message is in r->flow. */
tsr_status tsr_run_pipeline(tsr_run *r);
/* Calls on_progress. From the caller's thread. */
void tsr_run_progress(tsr_run *r);

#endif
