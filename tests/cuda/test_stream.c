/* Caches in pinned host memory: the bits of caches on the device, whether transfers run early or late, in graphs or
 * not; and calls that fail. */
#include "fake_help.h"

#include "backend/cuda/device.h"

TestSuite(cuda_stream, .init = open_fake);

typedef enum homes { ON_DEVICE, ON_HOST, ON_BOTH } homes;

/* Where caches are: of the plan's, how many on the host and on the device. */
static void count_homes(const tsr_plan *p, int n[2]) {
    n[0] = n[1] = 0;
    for (int i = 0; i < p->program[TSR_STEP_FIRST]->caches; i++)
        n[p->cache_at[i] == SIZE_MAX ? 0 : 1]++;
}

/* The largest budget that some caches fit in, and not all. */
static void plan_mixed(life *l, const clip *c, tsr_precision precision) {
    tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
    int n[2] = {0, 1};
    ok(plan_life(l, c, precision, TSR_CACHES_DEVICE));
    params.budget = l->plan->info.bytes.total;
    params.precision = precision, params.untiled = true;
    for (int i = 0; i < 200 && (!n[0] || !n[1]); i++) {
        params.budget -= 1 << 8;
        tsr_plan_destroy(&l->plan);
        ok(tsr_plan_create(&l->plan, l->e, &l->model, &(tsr_extent){c->steps, c->h, c->w}, &params));
        count_homes(l->plan, n);
    }
    cr_assert(n[0] && n[1], "%d caches on the host, %d on the device", n[0], n[1]);
}

/* malloc'd; of the last run: a second one has nothing to make. */
static float *decode(
    const clip *c, const fake_cuda_config *config, tsr_precision precision, homes home, bool plain, int runs) {
    life l;
    tsr_exec *exec;
    float *out = calloc(c->n, sizeof *out);
    ok(start_life(&l, c, config));
    if (home == ON_BOTH)
        plan_mixed(&l, c, precision);
    else
        ok(plan_life(&l, c, precision, home == ON_HOST ? TSR_CACHES_HOST : TSR_CACHES_DEVICE));
    cr_assert_eq(l.plan->numerics.precision, precision);
    cr_assert_eq(l.plan->info.mode, home ? TSR_MODE_OFFLOADED : TSR_MODE_UNTILED);
    ok(tsr_engine_prepare(l.e, l.plan, &exec));
    exec->plain = plain;
    for (int i = 0; i < runs; i++) {
        memset(out, 0, c->n * sizeof *out);
        ok(decode_life(&l, c, out));
    }
    fake_cuda_counts seen = counted();
    cr_assert_eq(seen.graphs, plain ? 0 : runs * c->steps);
    cr_assert_eq(seen.built, plain ? 0 : 3, "%d graphs were built", seen.built);
    close_life(&l);
    nothing_is_left();
    return out;
}

/* Resident against streamed; graphs twice, for then nothing is built. */
static void alike(const fake_cuda_config *config, tsr_precision precision, homes home, bool plain) {
    clip c;
    int runs = plain ? 1 : 2;
    open_tiny(&c, 3);
    float *want = decode(&c, &ADA, precision, ON_DEVICE, plain, 1);
    float *have = decode(&c, config, precision, home, plain, runs);
    cr_expect_arr_eq(have, want, c.n * sizeof *want);
    free(have);
    free(want);
    close_clip(&c);
}

static void graphs_alike(tsr_precision precision, homes home) {
    alike(&ADA, precision, home, false);
}

/* Without graphs transfers have a stream of their own. */
static void streams_alike(tsr_precision precision, homes home, int eager) {
    fake_cuda_config config = ADA;
    config.eager_copies = eager;
    alike(&config, precision, home, true);
}

#ifndef LONG
static bool overlap(CUdeviceptr a, size_t a_bytes, CUdeviceptr b, size_t b_bytes) {
    return a < b + b_bytes && b < a + a_bytes;
}

/* Two transfers, one of which writes what the other reads or writes. */
static bool clash(const tsr_cuda_launch *l, const tsr_cuda_launch *k) {
    const tsr_cuda_copy *a = &l->args.copy, *b = &k->args.copy;
    return overlap(a->to, a->bytes, b->to, b->bytes) || overlap(a->to, a->bytes, b->from, b->bytes) ||
           overlap(a->from, a->bytes, b->to, b->bytes);
}

/* Of the transfers of a step those that clash: how many have an order by what they wait for; all must. */
static int ordered_transfers(const tsr_cuda_step *s) {
    int last[TSR_CUDA_CHAINS] = {-1, -1, -1}, n = 0;
    /* [launch]: the last of each chain before it */
    int(*known)[TSR_CUDA_CHAINS] = calloc((size_t)s->launches + 1, sizeof *known);
    for (int i = 0; i < s->launches; i++) {
        const tsr_cuda_launch *l = &s->launch[i];
        memset(known[i], -1, sizeof known[i]);
        for (int c = 0; c < TSR_CUDA_CHAINS; c++) {
            int before = c == TSR_CUDA_OPS || c == (int)l->chain ? last[c] : l->awaits[c];
            for (int d = 0; before >= 0 && d < TSR_CUDA_CHAINS; d++) {
                int seen = d == c ? before : known[before][d];
                known[i][d] = seen > known[i][d] ? seen : known[i][d];
            }
        }
        last[l->chain] = i;
        for (int k = 0; l->chain && k < i; k++)
            if (s->launch[k].chain && s->launch[k].chain != l->chain && clash(l, &s->launch[k])) {
                cr_assert_geq(known[i][s->launch[k].chain], k, "transfer %d does not wait for transfer %d", i, k);
                n++;
            }
    }
    free(known);
    return n;
}

/* Whatever the budget: plans with slices save caches and load them again in the same step, into memory that was just
 * copied from. */
Test(cuda_stream, transfers_that_clash_are_in_order) {
    clip c;
    life l;
    int plans = 0, clashes = 0;
    int64_t budget = 0;
    c = (clip){.steps = 3, .h = 16, .w = 16};
    model(&c, &(synth_config){.decoder = true, .channels = {32, 32, 32, 32}, .layers = 1});
    c.input = synth_latent(16, c.steps, c.h, c.w, 0);
    for (;; plans++, budget -= budget / 32) {
        tsr_exec *exec;
        tsr_plan_params params = {.precision = TSR_PRECISION_INT8,
            .overlap_width = -1,
            .overlap_height = -1,
            .untiled = true,
            .caches = TSR_CACHES_HOST,
            .budget = budget};
        ok(start_life(&l, &c, &ADA));
        if (tsr_plan_create(&l.plan, l.e, &l.model, &(tsr_extent){c.steps, c.h, c.w}, &params) != TSR_OK)
            break;
        ok(tsr_engine_prepare(l.e, l.plan, &exec));
        for (int s = 0; s < TSR_STEP_COUNT; s++)
            clashes += ordered_transfers(&exec->step[s]);
        budget = budget ? budget : l.plan->info.bytes.total;
        close_life(&l);
    }
    close_life(&l);
    nothing_is_left();
    printf("# %d plans, %d clashes\n", plans, clashes);
    cr_assert_gt(clashes, 0);
    close_clip(&c);
}
#endif

/* Every `stride`-th call that comes with caches on the host fails: one error, and nothing is left. */
static void fail_calls(bool decodes, int stride) {
    clip c;
    life l;
    tsr_exec *exec;
    open_tiny(&c, 3);
    float *want = calloc(c.n, sizeof *want), *have = calloc(c.n, sizeof *have);
    ok(start_life(&l, &c, &ADA));
    ok(plan_life(&l, &c, TSR_PRECISION_INT8, TSR_CACHES_HOST));
    int begin = counted().calls, errors = 0, n = 0;
    ok(tsr_engine_prepare(l.e, l.plan, &exec));
    int prepared = counted().calls, end = prepared;
    if (decodes) {
        ok(decode_life(&l, &c, want));
        end = counted().calls;
        begin = prepared;
    }
    close_life(&l);
    for (int at = begin; at < end; at += stride, n++) {
        ok(start_life(&l, &c, &ADA));
        ok(plan_life(&l, &c, TSR_PRECISION_INT8, TSR_CACHES_HOST));
        fake.fail_at(at - counted().calls);
        bool good = (decodes ? decode_life(&l, &c, have) : tsr_engine_prepare(l.e, l.plan, &exec)) == TSR_OK;
        const char *error = tsr_last_error();
        cr_assert(good || (strstr(error, "cuda: ") && !strchr(error, '\n')), "call %d: %s", at, error);
        bool same = !good || !decodes || memcmp(have, want, c.n * sizeof *have) == 0;
        cr_assert(same, "call %d failed and the frames are others", at);
        errors += !good;
        fake.fail_at(-1);
        close_life(&l);
        nothing_is_left();
    }
    printf("# %d of %d calls failed, %d of them ended the run\n", n, end - begin, errors);
    cr_assert_gt(errors, 0);
    free(have);
    free(want);
    close_clip(&c);
}

#ifndef LONG
Test(cuda_stream, int8_in_graphs) {
    graphs_alike(TSR_PRECISION_INT8, ON_BOTH);
}
Test(cuda_stream, fp8_on_streams) {
    streams_alike(TSR_PRECISION_FP8, ON_HOST, 1);
}
Test(cuda_stream, calls_of_preparing_may_fail) {
    fail_calls(false, 3);
}
#else
Test(cuda_stream, int8_all_on_host_in_graphs) {
    graphs_alike(TSR_PRECISION_INT8, ON_HOST);
}
Test(cuda_stream, fp8_in_graphs) {
    graphs_alike(TSR_PRECISION_FP8, ON_HOST);
}
Test(cuda_stream, bf16_in_graphs) {
    graphs_alike(TSR_PRECISION_BF16, ON_BOTH);
}
Test(cuda_stream, int8_on_streams) {
    streams_alike(TSR_PRECISION_INT8, ON_HOST, 0);
}
Test(cuda_stream, int8_on_streams_early) {
    streams_alike(TSR_PRECISION_INT8, ON_HOST, 1);
}
Test(cuda_stream, int8_mixed_on_streams) {
    streams_alike(TSR_PRECISION_INT8, ON_BOTH, 0);
}
Test(cuda_stream, fp16_on_streams) {
    streams_alike(TSR_PRECISION_FP16, ON_HOST, 0);
}
Test(cuda_stream, calls_of_decoding_may_fail) {
    fail_calls(true, 23);
}
#endif
