#include "session/steps.h"

#include <stdlib.h>

float *tsr_noise(size_t n) {
    float *z = malloc(n * sizeof *z);
    uint64_t seed = 1;
    for (size_t i = 0; z && i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        z[i] = ((float)(seed >> 40) / (float)(1 << 23) - 1) * 1.7320508f;
    }
    return z;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double tsr_median(double *v, int n) {
    qsort(v, (size_t)n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

tsr_status tsr_steps_open(tsr_steps *s, tsr_engine *e, const tsr_plan *plan) {
    *s = (tsr_steps){.e = e, .plan = plan};
    s->input = tsr_noise((size_t)plan->tile_h * (size_t)plan->tile_w * (size_t)plan->half->in_channels);
    if (!s->input)
        return tsr_fail(TSR_ERR_MEMORY, "no memory for a tile of noise; use smaller tiles");
    s->others = tsr_engine_memory_others(e).device;
    tsr_status status = tsr_engine_prepare(e, plan, &s->exec); /* first: of another plan no more than weights stay */
    tsr_mem_reset_peak();
    if (status != TSR_OK)
        return status;
    return e->backend->v->slab_alloc(e->backend, (size_t)plan->slots * plan->slot_bytes, &s->slab);
}

tsr_status tsr_steps_run(tsr_steps *s, tsr_step step) {
    tsr_backend *b = s->e->backend;
    tsr_step_args args = {.step = step, .input = s->input, .slab = &s->slab, .ready_value = s->e->ready_value + 1};
    tsr_status status = b->v->step(b, s->exec, &args);
    if (status != TSR_OK)
        return status;
    s->e->ready_value++;
    return b->v->asynchronous ? b->v->wait(b, s->exec, s->e->ready_value) : TSR_OK;
}

void tsr_steps_close(tsr_steps *s) {
    if (s->slab.bytes)
        s->e->backend->v->slab_free(s->e->backend, &s->slab);
    free(s->input);
    *s = (tsr_steps){0};
}
