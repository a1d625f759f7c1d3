/* Memory of the device that runs short, on the driver without a GPU: it is not there when the plan is made ready, or
 * other programs take it while frames come. A smaller plan goes on and gives its own bits. */
#include "fake_help.h"

#include <unistd.h>

TestSuite(cuda_short, .init = open_fake);

static int64_t frames_of(const clip *c) {
    return 1 + 2 * (c->steps - 1);
}

static size_t plane_of(const clip *c) {
    return (size_t)(4 * c->h * c->w);
}

static void open_clip(clip *c, int steps, int h, int w) {
    *c = (clip){.steps = steps, .h = h, .w = w};
    c->n = 3 * (size_t)frames_of(c) * plane_of(c);
    model(c, &(synth_config){.decoder = true, .channels = {32, 32}, .layers = 1});
    c->input = synth_latent(16, steps, h, w, 0);
}

/* A device whose memory comes in small pieces, so that plans of a few MB differ; and the largest plan there. */
static const fake_cuda_config *roomy(void) {
    static fake_cuda_config config;
    config = ADA;
    config.pages = 4096;
    return &config;
}

static void begin(life *l, const clip *c, int64_t budget) {
    tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
    params.precision = TSR_PRECISION_FP16;
    params.budget = budget;
    ok(start_life(l, c, roomy()));
    ok(tsr_plan_create(&l->plan, l->e, &l->model, &(tsr_extent){c->steps, c->h, c->w}, &params));
    cr_assert_eq(l->plan->info.mode, TSR_MODE_UNTILED);
}

/* Who takes the frames, and the memory. */
typedef struct watch {
    shown frames;
    int plans;
    int64_t first;   /* frame of the last plan */
    int64_t fall_at; /* other programs have all from this frame to the next plan; -1: never */
} watch;

static tsr_status on_frame(void *user, const tsr_frame *f) {
    watch *w = user;
    if (f->index == w->fall_at) {
        fake_cuda_config config = *roomy();
        config.others = config.memory;
        fake.reconfigure(&config);
        usleep(400000); /* the decode looks every so often */
    }
    return keep_frame(&w->frames, f);
}

static void on_plan(void *user, const tsr_plan_info *plan, int64_t first, const char *why) {
    watch *w = user;
    w->plans++;
    w->first = first;
    cr_expect(plan->bytes.total > 0 && strstr(why, "memory"), "%s", why);
    if (w->fall_at >= 0)
        fake.reconfigure(roomy());
}

static tsr_status decode(life *l, const clip *c, const tsr_plan *plan, watch *w, float *out) {
    *w = (watch){.frames = {out, plane_of(c), frames_of(c)}, .fall_at = w->fall_at};
    return tsr_decode(l->e, &l->model, l->latent, plan,
        &(tsr_decode_params){.pixels = TSR_PIXELS_RGB_F32, .on_frame = on_frame, .on_plan = on_plan, .user = w}, NULL);
}

/* The plans that follow each other: the device memory each takes, and the bits of the first, second and last. */
enum { MOST = 16 };
typedef struct chain {
    int n; /* smaller ones */
    size_t took[MOST];
    int64_t total[MOST];
    float *bits[MOST];
} chain;

static chain chain_of(const clip *c) {
    chain all = {0};
    life l;
    tsr_exec *exec;
    begin(&l, c, 1 << 30);
    for (bool more = true; more && all.n < MOST; all.n++) {
        tsr_plan *next = NULL;
        watch w = {.fall_at = -1};
        ok(tsr_engine_prepare(l.e, l.plan, &exec));
        all.total[all.n] = l.plan->info.bytes.total;
        all.took[all.n] = counted().memory; /* slots are on the host here */
        cr_assert(!all.n || all.took[all.n] < all.took[all.n - 1]);
        more = tsr_plan_smaller(&next, l.plan, 0) == TSR_OK;
        if (all.n < 2 || !more) {
            all.bits[all.n] = calloc(c->n, sizeof(float));
            ok(decode(&l, c, l.plan, &w, all.bits[all.n]));
            cr_assert_eq(w.plans, 0);
        }
        tsr_plan_destroy(&l.plan);
        l.plan = next;
    }
    cr_assert(!l.plan && --all.n >= 2, "%d smaller plans", all.n);
    cr_assert_neq(memcmp(all.bits[0], all.bits[all.n], c->n * sizeof(float)), 0, "tiles round otherwise");
    close_life(&l);
    return all;
}

/* On a device with so much memory, which the plan does not know. */
static tsr_status decode_with(size_t memory, const clip *c, watch *w, float *out) {
    life l;
    fake_cuda_config config = *roomy();
    begin(&l, c, 1 << 30);
    config.memory = memory;
    fake.reconfigure(&config);
    w->fall_at = -1;
    tsr_status status = decode(&l, c, l.plan, w, out);
    close_life(&l);
    nothing_is_left();
    return status;
}

/* cuMemCreate finds too little for the first plans: the first one that fits decodes, without a frame lost; where none
 * does, one line says what the smallest would take. */
Test(cuda_short, the_first_plan_that_fits_decodes) {
    clip c;
    watch w;
    char need[64];
    open_clip(&c, 2, 4, 5);
    chain all = chain_of(&c);
    float *out = calloc(c.n, sizeof *out);
    printf("# %d plans, of %zu to %zu bytes\n", all.n + 1, all.took[0], all.took[all.n]);
    for (int k = 0; k <= all.n; k++) {
        if (!all.bits[k])
            continue;
        memset(out, 0, c.n * sizeof *out);
        ok(decode_with(all.took[k], &c, &w, out));
        cr_assert(w.plans == k && w.first == 0, "%d plans followed, %d expected", w.plans, k);
        cr_assert_arr_eq(out, all.bits[k], c.n * sizeof *out);
        free(all.bits[k]);
    }
    cr_assert_eq(decode_with(all.took[all.n] - 4096, &c, &w, out), TSR_ERR_MEMORY);
    cr_assert_eq(w.plans, all.n);
    snprintf(need, sizeof need, "(%lld bytes)", (long long)all.total[all.n]);
    cr_assert(strstr(tsr_last_error(), need) && strstr(tsr_last_error(), "cuda: "), "%s", tsr_last_error());
    free(out);
    close_clip(&c);
}

/* Other programs have it all when the last frame is given: no plan is needed for the rest, which is nothing. */
Test(cuda_short, the_last_frame_needs_no_plan) {
    clip c;
    life l;
    watch w = {.fall_at = -1};
    open_clip(&c, 2, 4, 5);
    float *out = calloc(c.n, sizeof *out), *whole = calloc(c.n, sizeof *out);
    begin(&l, &c, 0);
    ok(decode(&l, &c, l.plan, &w, whole));
    w.fall_at = frames_of(&c) - 1;
    ok(decode(&l, &c, l.plan, &w, out));
    cr_assert_eq(w.plans, 0);
    cr_assert_arr_eq(out, whole, c.n * sizeof *out);
    close_life(&l);
    nothing_is_left();
    free(whole);
    free(out);
    close_clip(&c);
}

/* cuMemGetInfo reports that other programs have it all: frames that came stay, the others are the smaller plan's. */
Test(cuda_short, a_smaller_plan_goes_on_where_memory_falls) {
    clip c;
    life l;
    watch w = {.fall_at = -1};
    tsr_plan *smaller;
    open_clip(&c, 5, 4, 7); /* more steps than places in the rings: all cannot be done while a frame is looked at */
    const int64_t frames = frames_of(&c);
    float *out = calloc(c.n, sizeof *out), *whole = calloc(c.n, sizeof *out), *rest = calloc(c.n, sizeof *out);
    begin(&l, &c, 0);
    ok(decode(&l, &c, l.plan, &w, whole));
    cr_assert_eq(w.plans, 0);
    w.fall_at = 1;
    ok(decode(&l, &c, l.plan, &w, out));
    int64_t first = w.first;
    cr_assert(w.plans == 1 && first > 1 && first < frames, "%d plans, the last from frame %d", w.plans, (int)first);
    w.fall_at = -1;
    ok(tsr_plan_smaller(&smaller, l.plan, first));
    ok(decode(&l, &c, smaller, &w, rest));
    for (int64_t k = 0; k < 3; k++) {
        size_t at = (size_t)(k * frames) * plane_of(&c), middle = at + (size_t)first * plane_of(&c);
        cr_assert_arr_eq(out + at, whole + at, (middle - at) * sizeof *out);
        cr_assert_arr_eq(out + middle, rest + middle, (size_t)(frames - first) * plane_of(&c) * sizeof *out);
    }
    cr_assert_neq(memcmp(out, whole, c.n * sizeof *out), 0);
    tsr_plan_destroy(&smaller);
    close_life(&l);
    nothing_is_left();
    free(rest);
    free(whole);
    free(out);
    close_clip(&c);
}
