/* Inside the preview: what the thread that watches and the thread that decodes share, and the frames that are kept. */
#ifndef TSR_WATCH_H
#define TSR_WATCH_H

#include <tessera/preview.h>

#include "session/rough.h"
#include "session/session.h"
#include "vulkan/show.h"

/* ---------------------------------------------------------------- the decode: preview_decode.c */

typedef enum tsr_slot_state { SLOT_FREE, SLOT_WRITING, SLOT_READY, SLOT_BLENDING } tsr_slot_state;

typedef struct tsr_watch_slot {
    tsr_slot_state state;
    int run; /* that wrote it */
    int tile, latent;
    uint64_t ready_value, ticket; /* of the backend's lane; of the submission that blends it */
    double began, seconds;
    double share; /* of the job's work that is done with this step */
} tsr_watch_slot;

enum { TSR_WATCH_SLOTS = 8 }; /* at most; plans have two */

/* What is to be decoded next. */
typedef struct tsr_watch_job {
    int run; /* counts starts; 0: nothing */
    tsr_plan *plan;
    const tsr_latent *z;
    int video;
    bool never; /* only the plan is taken, nothing is decoded */
} tsr_watch_job;

/* What is to be painted roughly. */
typedef struct tsr_watch_sketch {
    int number; /* counts; 0: nothing */
    tsr_model *m;
    const tsr_latent *z;
    int video;
} tsr_watch_sketch;

typedef struct tsr_watch_worker {
    tsr_engine *e;
    void (*wake)(void *user);
    void *user;
    pthread_t thread, collector; /* the collector waits for asynchronous backends */
    bool runs, collects;

    pthread_mutex_t lock; /* of all below */
    pthread_cond_t changed;
    bool quit, stop;   /* stop: give up the job in hand */
    bool forget, busy; /* forget: free what is ready to run. busy: there is work in hand or to come */
    tsr_watch_job next;
    tsr_watch_sketch sketch;
    tsr_preview_state state;
    int run;                    /* of the job in hand or done last */
    double began, ended;        /* times of its first step and its end */
    double share, step_seconds; /* of its work, done; that the step done last took */
    int tile, latent;           /* in hand, -1 none */
    char error[512];
    bool no_memory; /* is what that is about */
    int64_t backend_bytes;
    tsr_exec *exec; /* of the job in hand */
    tsr_watch_slot slot[TSR_WATCH_SLOTS];
    int slots;        /* of the job in hand */
    int head;         /* the slot that is written next */
    tsr_slab slab;    /* the backend's; bytes 0: none */
    int slab_number;  /* counts slabs, for the watcher to import */
    bool slab_wanted; /* the worker wants to free it: the watcher lets go of it first */
    bool slab_held;   /* imported */
    uint32_t *rough;  /* painted, for the watcher to take; malloc'd */
    int rough_number; /* of the sketch */
    atomic_bool sketch_stop;
} tsr_watch_worker;

tsr_status tsr_watch_worker_start(tsr_watch_worker *w, tsr_engine *e, void (*wake)(void *), void *user);
/* The slab must have been let go of. */
void tsr_watch_worker_end(tsr_watch_worker *w);
/* Output frames of latent t: how many, and the first. */
int tsr_watch_frames_of(const tsr_plan *p, int t, int64_t *first);

/* ---------------------------------------------------------------- frames that are kept: preview_frames.c */

typedef struct tsr_kept {  /* one accumulator, perhaps seen in several places */
    tsr_vk_frames *frames; /* of one */
    int users;
} tsr_kept;

typedef struct tsr_watch_frame {
    tsr_kept *fresh, *old, *reference;
    int come;     /* tiles blended into fresh */
    double *when; /* [tiles] times at which they came, 0: not yet; NULL: none yet, or all and long ago */
} tsr_watch_frame;

typedef struct tsr_watch_pool {
    tsr_vk *vk;
    int width, height;
    int64_t bytes_most, bytes; /* allowed; of all that exist */
    tsr_kept **spare;          /* nobody's */
    int spares, room;
} tsr_watch_pool;

/* One of this type, from the spare ones or new; *out NULL where there is no room. */
tsr_status tsr_watch_take(tsr_watch_pool *pool, tsr_dtype dtype, tsr_kept **out);
void tsr_watch_give(tsr_watch_pool *pool, tsr_kept **k);
/* Frees the spare ones. */
void tsr_watch_pool_empty(tsr_watch_pool *pool);

/* ---------------------------------------------------------------- the watcher: preview.c */

struct tsr_preview {
    tsr_engine *e;
    tsr_preview_params params;
    tsr_watch_worker worker;
    tsr_preview_info info;
    char error[512], shrunk[1024];

    const tsr_model *m;
    const tsr_latent *z;
    int video, sketch;
    int frames; /* 0: no video */
    int64_t look_at;

    tsr_plan *plan; /* of the last start; the worker's to destroy */
    int run;
    double started, asked_memory; /* times */
    tsr_watch_frame *frame;       /* [frames] */
    tsr_watch_pool pool;
    float *x, *y, *come;  /* tables of tsr_vk_stack */
    double *tile_seconds; /* [tiles], sums */
    int *tile_steps;
    uint64_t ticket; /* of the last submission that blended */

    tsr_vk_slab *slab;
    int slab_number;
    tsr_vk_rough *rough;
    tsr_vk_canvas *canvas, *deep_canvas;
    bool comparing;
};

/* preview_show.c */
/* What is seen of a frame at this time. *fading (may be NULL): some of it is fading in. `tables`: tiles even where the
 * frame is whole. */
tsr_vk_stack tsr_watch_stack(tsr_preview *p, int64_t frame, bool tables, double now, bool *fading);
/* preview_frames.c: fresh frames become old ones, before another plan begins. */
tsr_status tsr_watch_retire(tsr_preview *p, bool keep_whole);
/* An accumulator for a fresh frame; others farther away make room. *out NULL: none does. */
tsr_status tsr_watch_make_room(tsr_preview *p, int64_t frame, tsr_dtype dtype, tsr_kept **out);
void tsr_watch_forget(tsr_preview *p);

#endif
