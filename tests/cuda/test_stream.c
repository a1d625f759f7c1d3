/* Caches in pinned host memory: the bits of caches on the device, whether transfers run early or late, in graphs or
 * not; and calls that fail. */
#include "fake_help.h"

#include "backend/cuda/device.h"

TestSuite(cuda_stream, .init = open_fake);

/* malloc'd; of the last run: a second one has nothing to make. */
static float *decode(
    const clip *c, const fake_cuda_config *config, tsr_precision precision, bool host, bool plain, int runs) {
    life l;
    tsr_exec *exec;
    float *out = calloc(c->n, sizeof *out);
    ok(start_life(&l, c, config));
    ok(plan_life(&l, c, precision, host ? TSR_CACHES_HOST : TSR_CACHES_DEVICE));
    cr_assert_eq(l.plan->numerics.precision, precision);
    cr_assert_eq(l.plan->info.mode, host ? TSR_MODE_OFFLOADED : TSR_MODE_UNTILED);
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
static void alike(const fake_cuda_config *config, tsr_precision precision, bool plain) {
    clip c;
    int runs = plain ? 1 : 2;
    open_tiny(&c, 3);
    float *want = decode(&c, &ADA, precision, false, plain, 1), *have = decode(&c, config, precision, true, plain, runs);
    cr_expect_arr_eq(have, want, c.n * sizeof *want);
    free(have);
    free(want);
    close_clip(&c);
}

static void graphs_alike(tsr_precision precision) {
    alike(&ADA, precision, false);
}

/* Without graphs transfers have a stream of their own. */
static void streams_alike(tsr_precision precision, int eager) {
    fake_cuda_config config = ADA;
    config.eager_copies = eager;
    alike(&config, precision, true);
}

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
Test(cuda_stream, int8_in_graphs) { graphs_alike(TSR_PRECISION_INT8); }
Test(cuda_stream, fp8_on_streams) { streams_alike(TSR_PRECISION_FP8, 1); }
Test(cuda_stream, calls_of_preparing_may_fail) { fail_calls(false, 3); }
#else
Test(cuda_stream, fp8_in_graphs) { graphs_alike(TSR_PRECISION_FP8); }
Test(cuda_stream, bf16_in_graphs) { graphs_alike(TSR_PRECISION_BF16); }
Test(cuda_stream, int8_on_streams) { streams_alike(TSR_PRECISION_INT8, 0); }
Test(cuda_stream, int8_on_streams_early) { streams_alike(TSR_PRECISION_INT8, 1); }
Test(cuda_stream, fp16_on_streams) { streams_alike(TSR_PRECISION_FP16, 0); }
Test(cuda_stream, calls_of_decoding_may_fail) { fail_calls(true, 23); }
#endif
