/* The pump: plan -> backend -> slots -> Vulkan -> callback. Behind tsr_engine_*, tsr_plan_create
 * and tsr_decode of the public header. */
#ifndef TSR_SESSION_H
#define TSR_SESSION_H

#include "backend/backend.h"
#include "formats/latent_file.h"
#include "session/mix.h"
#include "vulkan/vk.h"

#include <pthread.h>

/* How slots get to Vulkan: interop.c. */
typedef enum tsr_way { TSR_WAY_HOST, TSR_WAY_EXPORTED, TSR_WAY_IMPORTED } tsr_way;

typedef struct tsr_memory { /* bytes */
    int64_t device, host;
} tsr_memory;

struct tsr_engine {
    tsr_engine_params params;
    tsr_backend *backend;
    bool probed; /* the way of the slots of a GPU's backend is known (interop.c), and why it is no better: */
    tsr_way way;
    char no_import[640], no_share[320];
    tsr_vk_timeline *lane; /* that the backend signals; NULL: timelines are not shared */
    bool quiet;            /* its decodes are measurements: no line is logged of each */
    char no_cuda[256];     /* where any device would have done: why it is not a GPU. "" else */
    tsr_vk *vk;            /* made at the first decode or report */
    atomic_bool cancel;    /* stops the running decode within an op: tsr_cancel(), or a stage that failed */
    atomic_bool cancelled; /* tsr_cancel() was called since the decode began; set before `cancel` */
    uint64_t ready_value;  /* of the last step that began; it only grows, as the lane's timeline does */
    atomic_int users;      /* the handle and every plan; the last one to go frees the engine */

    /* The plan decoded last stays ready to run, so that the next video by it starts at once. */
    pthread_mutex_t lock; /* of the four below: a plan may be destroyed while another one is decoded */
    tsr_exec *exec;
    const tsr_plan *exec_plan; /* NULL: none */
    tsr_memory exec_bytes;     /* counted memory that exec takes */
    tsr_losses losses;         /* measured last; under the lock, too */
};

/* Takes over backend, also on failure. For tsr_engine_create, and for tests that bring their own.
 */
tsr_status tsr_engine_wrap(tsr_engine **out, tsr_backend *backend, const tsr_engine_params *params);
void tsr_engine_keep(tsr_engine *e);

/* Makes e->vk where there is none yet. Called from whichever thread makes the Vulkan calls. */
tsr_status tsr_engine_vulkan(tsr_engine *e);
/* Before slabs are taken for a GPU's backend: tries the ways to Vulkan and keeps the best. Makes e->vk; asked once,
 * later calls cost nothing. */
tsr_status tsr_engine_probe_slots(tsr_engine *e);
/* What the way is, and why it is no better. */
void tsr_engine_report_slots(tsr_engine *e, tsr_line_fn line, void *user);
/* A slab by the way that was found; those that Vulkan exports come and go on the thread of the Vulkan calls. */
tsr_status tsr_engine_slab_alloc(tsr_engine *e, size_t bytes, tsr_slab *out);
void tsr_engine_slab_free(tsr_engine *e, tsr_slab *slab);
/* The slab as Vulkan's, once e->vk is there. *how says in words which way it went. */
tsr_status tsr_engine_import(tsr_engine *e, tsr_slab *slab, tsr_vk_slab **out, const char **how);
void tsr_engine_let_go(tsr_engine *e, const tsr_slab *slab, tsr_vk_slab **imported);
/* Before e->vk goes. */
void tsr_engine_end_sharing(tsr_engine *e);
/* How much of what is counted is not what is ready to run. */
tsr_memory tsr_engine_memory_others(tsr_engine *e);
/* Frees what is ready to run of another plan, begins to watch the peak of counted memory, and
 * returns how much of it belongs to neither. */
tsr_memory tsr_engine_memory_before(tsr_engine *e, const tsr_plan *plan);
/* The plan made ready to run; e keeps it. What is ready of another plan goes first, but for packed weights that this
 * one shares; that plan must live until this returns. Those who count memory call tsr_engine_memory_before before it.
 */
tsr_status tsr_engine_prepare(tsr_engine *e, const tsr_plan *plan, tsr_exec **out);
/* Frees what is ready to run, if it is of this plan; NULL: whichever. */
void tsr_engine_forget(tsr_engine *e, const tsr_plan *plan);

/* A plan of this mix; of the precision that params name. */
tsr_status tsr_plan_mixed(tsr_plan **out, tsr_engine *e, const tsr_half *half, const tsr_extent *extent,
    const tsr_plan_params *params, const tsr_mix *mix);
/* Makes a quality or TSR_PRECISION_AUTO in p a precision, and target->mix. m: NULL for encoders, which are not mixed.
 */
tsr_status tsr_quality_decide(
    tsr_engine *e, const tsr_model *m, const tsr_half *half, tsr_plan_params *p, tsr_target *target);

/* The same task from output frame `first` on (of an encoder: all of it), otherwise as `params` say. */
tsr_status tsr_plan_rest(tsr_plan **out, const tsr_plan *p, int64_t first, const tsr_plan_params *params);
/* The same with less memory, on the device and on the host: three quarters if there is such a plan, else as much as the
 * next smaller one takes. TSR_ERR_BUDGET where p is the smallest. */
tsr_status tsr_plan_smaller(tsr_plan **out, const tsr_plan *p, int64_t first);
/* The same where p failed for want of memory, as `why` says: TSR_ERR_MEMORY, and what p would need, where p is the
 * smallest. */
tsr_status tsr_plan_shrink(tsr_plan **out, const tsr_plan *p, int64_t first, const char *why);

/* The tile that tsr_tune found best for this device, model and precision, as it was asked for, in output pixels; false:
 * it was never tuned. */
void tsr_tuned_keep(tsr_engine *e, const tsr_model *m, tsr_precision precision, int width, int height);
bool tsr_tuned_tile(tsr_engine *e, const tsr_model *m, tsr_precision precision, int *width, int *height);

#endif
