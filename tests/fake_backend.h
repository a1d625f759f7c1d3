/* A backend that computes nothing: it fills slots with numbers that only depend on where and when a
 * pixel is, and checks what the session owes a backend: the order of steps, caches that follow
 * their tile, latents cut right. */
#ifndef TSR_TESTS_FAKE_BACKEND_H
#define TSR_TESTS_FAKE_BACKEND_H

#include "session/session.h"

typedef struct fake_params {
    bool asynchronous; /* steps run on a thread of the fake's */
    int op_us;         /* how long each of a step's ops takes */
    int fail_step;     /* the n-th step fails (from 1); 0: none */
    bool fail_prepare, fail_slab, fail_wait;
    int64_t total;        /* memory that there is; 0: unknown */
    int64_t most;         /* a plan may take before memory fails it; 0: any */
    _Atomic int64_t left; /* memory now free, where total is known */
    /* From this latent on (from 1; 0: none) the tile whose corner is latent (spoil_y, spoil_x), or every tile where
     * spoil_y < 0, gives and remembers NaN: in precisions other than f32, or in all. */
    int spoil_latent, spoil_y, spoil_x;
    bool spoil_f32;
} fake_params;

typedef struct fake_counts {
    int prepares, execs, slabs; /* execs, slabs: alive */
    int steps, parks, unparks;
    int queued;      /* steps that an asynchronous fake was given while it had one in hand */
    int steps_f32;   /* where the plan's precision is another: run again */
    char wrong[256]; /* the first broken promise; "" */
} fake_counts;

/* counts outlives the backend; params may be changed between decodes. */
tsr_backend *fake_create(fake_params *params, fake_counts *counts);

/* The latent the fake understands: every value says where it is. frames <= 64. */
tsr_latent *fake_latent(int frames, int height, int width);
/* What the decoded video holds at output frame f, row y, column x, in every channel c. */
float fake_value(int64_t f, int c, int y, int x);

#endif
