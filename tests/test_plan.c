/* Whole plans: bytes that add up and keep the budget, buffers that never share memory while both live, the published
 * architecture at the sizes people use. No device: the target is arithmetic. */
#include "random.h"
#include "sanitized.h"
#include "shapes.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define GIB (1024.0 * 1024 * 1024)

static double cpu_now(void) { /* others use this machine, too */
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static tsr_vae *published(void) {
    return shapes_vae(&(synth_config){.decoder = true});
}

static tsr_vae *small(void) {
    return shapes_vae(&(synth_config){.channels = {32, 64, 64}, .layers = 1, .latent = 8, .decoder = true});
}

static tsr_plan *must_plan(const tsr_vae *v, const tsr_target *t, tsr_extent e, const tsr_plan_params *params) {
    tsr_plan *p;
    tsr_status status = tsr_plan_make(&p, &v->decoder, t, &e, params);
    cr_assert_eq(status, TSR_OK, "%s", tsr_last_error());
    return p;
}

static tsr_status status_of(const tsr_vae *v, const tsr_target *t, tsr_extent e, const tsr_plan_params *params) {
    tsr_plan *p;
    tsr_status status = tsr_plan_make(&p, &v->decoder, t, &e, params);
    cr_assert(status == TSR_OK || !p);
    tsr_plan_free(&p);
    return status;
}

/* ---------------------------------------------------------------- what every plan promises */

struct piece {
    size_t at, bytes;
    int first, last;
};

static void check_apart(const struct piece *piece, int n, size_t room, size_t align) {
    for (int i = 0; i < n; i++) {
        cr_assert(piece[i].at % align == 0 && piece[i].at + piece[i].bytes <= room);
        for (int j = 0; j < i; j++)
            cr_assert(piece[i].last < piece[j].first || piece[j].last < piece[i].first || !piece[i].bytes ||
                          !piece[j].bytes || piece[i].at + piece[i].bytes <= piece[j].at ||
                          piece[j].at + piece[j].bytes <= piece[i].at,
                "pieces %d and %d share memory while both live", i, j);
    }
}

static size_t frame_0(const tsr_plan *p, tsr_step step, int buffer) {
    const tsr_buffer *b = &p->program[step]->buffer[buffer];
    return p->buffer_at[step][buffer] + b->bytes / (size_t)(b->head + b->frames) * (size_t)b->head;
}

static int places; /* norms in place, seen by check() */

static void check_arena(const tsr_plan *p, tsr_step step) {
    static struct piece pieces[8192];
    const tsr_program *g = p->program[step];
    int n = 0;
    for (int i = 0; i < g->buffers; i++) { /* the head, from when it is loaded, and the frames */
        const tsr_buffer *b = &g->buffer[i];
        size_t frame = b->bytes / (size_t)(b->head + b->frames), head = frame * (size_t)b->head;
        int loaded = b->first_op, first = b->first_op, last = b->last_op;
        const tsr_op *end = &g->op[last], *begin = &g->op[first];
        size_t at = p->buffer_at[step][i];
        if (end->kind == TSR_OP_NORM && end->in.buf == i &&
            at == frame_0(p, step, end->out.buf)) { /* its norm's output takes its place */
            const tsr_buffer *out = &g->buffer[end->out.buf];
            cr_assert(p->target.norm_in_place && out->dtype == b->dtype && b->head == 0 && out->frames == b->frames);
            places++;
            continue;
        }
        if (begin->kind == TSR_OP_NORM && begin->out.buf == i && frame_0(p, step, begin->in.buf) == at + head)
            first = g->buffer[begin->in.buf].first_op;
        for (int k = 0; k < g->ops; k++) {
            int moves = p->move_at[step] ? p->move_at[step][k] : -1;
            if (g->op[k].kind == TSR_OP_CACHE_LOAD && g->op[k].out.buf == i)
                loaded = moves >= 0 ? moves : k;
            if (g->op[k].kind == TSR_OP_CACHE_SAVE && g->op[k].in.buf == i && moves > last)
                last = moves - 1; /* it is still read on its way out */
        }
        pieces[n++] = (struct piece){at, head, loaded, last};
        pieces[n++] = (struct piece){at + head, b->bytes - head, first, last};
        cr_assert_eq(p->buffer_at[step][i] % p->target.align, 0);
    }
    for (int i = 0; i < g->ops; i++) {
        size_t bytes = p->target.op_scratch ? p->target.op_scratch(p->target.ctx, g, &g->op[i]) : 0;
        cr_assert_eq(p->scratch_at[step][i] == SIZE_MAX, bytes == 0);
        cr_assert(!bytes || p->scratch_at[step][i] % p->target.align == 0);
        if (bytes)
            pieces[n++] = (struct piece){p->scratch_at[step][i], bytes, i, i};
    }
    check_apart(pieces, n, p->arena_bytes, 1);
}

static void check_weights(const tsr_plan *p) {
    static struct piece pieces[8192];
    int n = 0;
    for (int i = 0; i < p->weights; i++)
        pieces[n++] = (struct piece){p->weight[i].at, p->weight[i].bytes, 0, 0};
    for (int i = 0; i < p->half->layers; i++) {
        cr_assert_eq(p->norm_at[i] == SIZE_MAX, p->half->layer[i].kind != TSR_LAYER_NORM);
        if (p->norm_at[i] != SIZE_MAX)
            pieces[n++] = (struct piece){p->norm_at[i], 8 * (size_t)p->half->layer[i].cout, 0, 0};
    }
    check_apart(pieces, n, p->weight_bytes, p->target.align);
    for (tsr_step step = 0; step < TSR_STEP_COUNT; step++)
        for (int k = 0; p->program[step] && k < p->program[step]->kernels; k++) {
            const tsr_kernel *a = &p->program[step]->kernel[k], *b = p->weight[p->weight_of[step][k]].kernel;
            cr_assert(a->layer == b->layer && a->fold == b->fold && a->cin == b->cin && a->cout == b->cout);
        }
}

/* Transfers in begin after what they bring was saved, at the load at the latest; transfers out end after they begin. */
static void check_moves(const tsr_plan *p, tsr_step step) {
    const tsr_program *g = p->program[step];
    const int *at = p->move_at[step];
    cr_assert_eq(at != NULL, p->host_at != NULL);
    cr_assert(!at || g->params.join_heads);
    for (int i = 0; at && i < g->ops; i++) {
        const tsr_op *op = &g->op[i];
        bool load = op->kind == TSR_OP_CACHE_LOAD, save = op->kind == TSR_OP_CACHE_SAVE;
        bool moves = (load || save) && p->host_at[op->cache] != SIZE_MAX;
        cr_assert_eq(moves, at[i] >= 0);
        if (moves)
            cr_assert(load ? at[i] <= i : at[i] > i && at[i] <= g->ops);
        for (int k = i - 1; moves && load && k >= at[i]; k--)
            cr_assert(g->op[k].kind != TSR_OP_CACHE_SAVE || g->op[k].cache != op->cache);
    }
}

static void check_caches(const tsr_plan *p) {
    static struct piece pieces[8192];
    for (tsr_step step = 0; step < TSR_STEP_COUNT; step++) {
        const tsr_program *g = p->program[step];
        if (!g || !g->caches)
            continue;
        int n = 0, hosts = 0;
        for (int i = 0; i < g->caches; i++) {
            bool host = p->host_at && p->host_at[i] != SIZE_MAX;
            cr_assert_eq(host, p->cache_at[i] == SIZE_MAX);
            if (!host)
                pieces[n++] = (struct piece){p->cache_at[i], g->cache[i].bytes, 0, 0};
        }
        check_apart(pieces, n, p->cache_bytes, p->target.align);
        for (int i = 0; p->host_at && i < g->caches; i++)
            if (p->host_at[i] != SIZE_MAX)
                pieces[hosts++] = (struct piece){p->host_at[i], g->cache[i].bytes, 0, 0};
        check_apart(pieces, hosts, p->host_bytes, p->target.align);
        check_moves(p, step);
    }
}

static void check_axis(const tsr_axis *a, int total, int tile, int factor) {
    float *sum = calloc((size_t)total * (size_t)factor, sizeof *sum);
    for (int i = 0; i < a->tiles; i++) {
        cr_assert_eq(a->latent[i].end - a->latent[i].begin, tile);
        cr_assert(a->pixel[i].begin == factor * a->latent[i].begin && a->pixel[i].end == factor * a->latent[i].end);
        cr_assert(a->latent[i].begin >= 0 && a->latent[i].end <= total);
        for (int x = 0; x < tile * factor; x++)
            sum[a->pixel[i].begin + x] += a->weight[i * tile * factor + x];
    }
    for (int x = 0; x < total * factor; x++)
        cr_assert(sum[x] > 1 - 1e-6f && sum[x] < 1 + 1e-6f);
    free(sum);
}

/* A latent, and a tile of one. */
static int64_t latents_host(const tsr_plan *p) {
    const tsr_extent *e = &p->info.extent;
    return 4 * (int64_t)p->half->in_channels * ((int64_t)e->height * e->width + (int64_t)p->tile_h * p->tile_w);
}

static void check(const tsr_plan *p) {
    const tsr_plan_info *i = &p->info;
    const tsr_plan_bytes *b = &i->bytes;
    int factor = p->half->space_factor, tiles = i->rows * i->columns, latents = p->end_latent - p->first_latent;
    cr_assert_eq(b->weights, (int64_t)p->weight_bytes);
    cr_assert_eq(b->arena, (int64_t)p->arena_bytes);
    cr_assert_eq(b->caches, (int64_t)p->cache_bytes * p->cache_sets);
    cr_assert_eq(b->host, (int64_t)p->cache_bytes * p->parked_sets + (int64_t)p->host_bytes + latents_host(p));
    cr_assert_eq(b->slots, (int64_t)p->slot_bytes * p->slots);
    cr_assert_eq(b->frames, (int64_t)p->frame_bytes * p->frames_in_flight);
    cr_assert_eq(b->total, b->weights + b->arena + b->caches + b->slots + b->frames);
    cr_assert_leq(b->total, i->budget);
    cr_assert_geq(p->arena_bytes, p->arena_bound);
    cr_assert_geq(p->slots, 2);
    cr_assert(p->segment >= 1 && p->segment <= latents);
    cr_assert(latents == 1 ? !p->cache_at && !p->cache_sets : p->cache_sets == 1 || p->cache_sets == tiles);
    cr_assert(p->parked_sets == 0 || p->parked_sets == tiles);
    if (tiles > 1 && p->segment < latents) /* every tile's caches outlive its turn */
        cr_assert(p->cache_sets == tiles || p->parked_sets == tiles);
    cr_assert_eq(i->mode == TSR_MODE_TILED, tiles > 1);
    cr_assert_eq(i->mode == TSR_MODE_OFFLOADED, p->host_at != NULL);
    cr_assert(i->seconds > 0 && i->seconds < 1e9);
    for (tsr_step step = 0; step < TSR_STEP_COUNT; step++) {
        cr_assert_eq(p->program[step] != NULL, (int)step < latents);
        if (!p->program[step])
            continue;
        const tsr_program *g = p->program[step];
        check_arena(p, step);
        cr_assert_geq(
            p->slot_bytes, (size_t)(g->out_frames * 3 * g->out_h) * (size_t)g->out_w * tsr_dtype_size(p->slot_dtype));
    }
    check_weights(p);
    check_caches(p);
    check_axis(&p->y, i->extent.height, p->tile_h, factor);
    check_axis(&p->x, i->extent.width, p->tile_w, factor);
    cr_assert(strlen(i->why) > 0 && strlen(i->runner_up) > 0);
}

/* ---------------------------------------------------------------- the published architecture */

static const struct {
    const char *name;
    int w, h;
} sizes[] = {{"720p", 160, 90}, {"1080p", 240, 136}, {"4K", 480, 270}};

Test(plan, packs_the_published_decoder_within_5_percent) {
    tsr_vae *v = published();
    tsr_target target = shapes_target();
    cr_assert_eq(tsr_lookback(&v->decoder), 37);
    for (int s = 0; s < 3; s++)
        for (tsr_precision precision = TSR_PRECISION_F32; precision <= TSR_PRECISION_INT8; precision++)
            for (int joined = 0; joined < 2; joined++) {
                tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
                params.precision = precision;
                target.join_heads = joined;
                tsr_plan *p = must_plan(v, &target, (tsr_extent){3, sizes[s].h, sizes[s].w}, &params);
                check(p);
                cr_assert_eq(p->info.mode, TSR_MODE_UNTILED);
                cr_assert_leq((double)p->arena_bytes, 1.05 * (double)p->arena_bound);
                if (joined)
                    printf("%-5s %-4s arena %.2f GiB, bound %.2f GiB; total %.2f GiB\n", sizes[s].name,
                        tsr_precision_name(precision), (double)p->arena_bytes / GIB, (double)p->arena_bound / GIB,
                        (double)p->info.bytes.total / GIB);
                tsr_plan_free(&p);
            }
    tsr_vae_destroy(&v);
}

Test(plan, caches_are_those_of_the_cost_model) {
    tsr_vae *v = published();
    tsr_target target = shapes_target();
    tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
    params.precision = TSR_PRECISION_FP16;
    tsr_plan *p = must_plan(v, &target, (tsr_extent){3, 90, 160}, &params);
    cr_assert_eq(p->cache_bytes, (size_t)234016 * 90 * 160 * 2, "merged upsamplers, spec 8.5");
    /* spec 9.6: 4,737,974,272 P + 2048 P^2 a latent; the first and second steps are below and at that */
    double later = 4737974272.0 * 14400 + 2048.0 * 14400 * 14400;
    cr_assert(p->info.flops > 2 * later && p->info.flops < 3 * later);
    tsr_plan_free(&p);
    tsr_vae_destroy(&v);
}

Test(plan, streams_4k_seamlessly_within_13_gib) {
    tsr_vae *v = published();
    tsr_target target = shapes_target();
    target.streams = true;
    target.join_heads = false;
    tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
    params.precision = TSR_PRECISION_INT8;
    params.budget = (int64_t)(13 * GIB);
    tsr_plan *p = must_plan(v, &target, (tsr_extent){3, 270, 480}, &params);
    check(p);
    cr_assert_eq(p->info.mode, TSR_MODE_OFFLOADED, "%s", p->info.why);
    cr_assert_gt(p->info.bytes.host, (int64_t)(25 * GIB));
    printf("4K in 13 GiB: %.2f GiB, host %.2f GiB, %.1f s\n", (double)p->info.bytes.total / GIB,
        (double)p->info.bytes.host / GIB, p->info.seconds);
    tsr_plan_free(&p);
    target.host_free = (int64_t)(20 * GIB);
    p = must_plan(v, &target, (tsr_extent){3, 270, 480}, &params);
    check(p);
    cr_assert_eq(p->info.mode, TSR_MODE_TILED, "a host of 20 GiB does not hold the caches");
    cr_assert(strstr(p->info.why, "host"), "%s", p->info.why);
    tsr_plan_free(&p);
    tsr_vae_destroy(&v);
}

Test(plan, a_small_overrun_costs_a_small_transfer) {
    tsr_vae *v = published();
    tsr_target target = shapes_target();
    target.streams = true;
    tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
    params.precision = TSR_PRECISION_FP16;
    tsr_plan *all = must_plan(v, &target, (tsr_extent){9, 90, 160}, &params);
    int64_t moved = 0;
    for (double share = 0.98; share > 0.4; share -= 0.08) {
        params.budget = (int64_t)(share * (double)all->info.bytes.total);
        params.untiled = true;
        tsr_plan *p = must_plan(v, &target, (tsr_extent){9, 90, 160}, &params);
        check(p);
        if (!moved && p->info.mode == TSR_MODE_OFFLOADED)
            cr_assert_leq(p->info.bytes.host, all->info.bytes.caches / 2, "most stays");
        moved += (int64_t)p->host_bytes;
        tsr_plan_free(&p);
    }
    cr_assert_gt(moved, 0);
    tsr_plan_free(&all);
    tsr_vae_destroy(&v);
}

Test(plan, a_norm_in_place_saves_a_fifth_of_a_picture) {
    tsr_vae *v = published();
    tsr_target target = shapes_target();
    tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
    params.precision = TSR_PRECISION_FP16;
    tsr_plan *apart = must_plan(v, &target, (tsr_extent){1, 270, 480}, &params);
    target.norm_in_place = true;
    tsr_plan *placed = must_plan(v, &target, (tsr_extent){1, 270, 480}, &params);
    check(placed);
    cr_assert_gt(places, 0);
    cr_assert_leq((double)placed->arena_bytes, 0.81 * (double)apart->arena_bytes);
    tsr_plan_free(&apart);
    tsr_plan_free(&placed);
    tsr_vae_destroy(&v);
}

/* The time it takes, which runs while a slider moves: 50 ms at most is wanted: `meson test --benchmark planning`. */
Test(time, is_short) {
    static const tsr_extent extents[] = {{100, 90, 160}, {100, 136, 240}, {100, 270, 480}, {100, 540, 960}, {5, 33, 57},
        {2, 1, 1}, {1, 300, 300}, {9, 7, 1000}, {9, 1000, 7}};
    tsr_vae *v = published();
    static const struct {
        const char *name;
        bool bands, host, exact;
    } rows[] = {{"without bands", false, false, false}, {"with bands, a CPU", true, true, false},
        {"--exact, a CPU", true, true, true}, {"--exact, a card", true, false, true}};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        tsr_target target = shapes_target();
        target.streams = true;
        target.bands = rows[r].bands;
        target.host_is_device = rows[r].host;
        double worst = 0, sum = 0;
        int plans = 0, at = 0;
        for (int s = 0; s < (int)(sizeof extents / sizeof *extents); s++)
            for (tsr_precision precision = TSR_PRECISION_F32; precision <= TSR_PRECISION_INT8; precision++)
                for (double gib = 64; gib > 0.25; gib /= 2) {
                    tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
                    params.precision = precision;
                    params.exact = rows[r].exact;
                    params.budget = (int64_t)(gib * GIB);
                    double begin = cpu_now();
                    status_of(v, &target, extents[s], &params);
                    double took = cpu_now() - begin;
                    at = took > worst ? s : at;
                    worst = took > worst ? took : worst;
                    sum += took;
                    plans++;
                }
        printf("%s: %d plans, %.1f ms each, the slowest %.1f ms (%d latents of %dx%d)\n", rows[r].name, plans,
            1e3 * sum / plans, 1e3 * worst, extents[at].frames, extents[at].width, extents[at].height);
    }
    tsr_vae_destroy(&v);
}

/* ---------------------------------------------------------------- budgets */

static int64_t bytes_named(void) { /* "... (123456 bytes)" */
    const char *at = strchr(tsr_last_error(), '(');
    return at ? atoll(at + 1) : -1;
}

Test(plan, keeps_any_budget_or_names_what_it_needs) {
    tsr_vae *v = small();
    tsr_target target = shapes_target();
    int modes[4] = {0}, refused = 0;
    int cases = getenv("TSR_TEST_LONG") ? 10000 : SANITIZED ? 400 : 1500;
    for (int c = 0; c < cases; c++) {
        tsr_extent e = {1 + below(c % 3 ? 4 : 40), 1 + below(c % 2 ? 24 : 120), 1 + below(c % 5 ? 24 : 120)};
        tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
        params.precision = TSR_PRECISION_F32 + below(5);
        params.budget = 500000 + ((int64_t)1 << below(29));
        params.caches = below(4) ? TSR_CACHES_AUTO : below(2) ? TSR_CACHES_DEVICE : TSR_CACHES_HOST;
        params.untiled = !below(6);
        if (!params.untiled && !below(3)) {
            params.tile_width = below(2) ? 8 * (1 + below(20)) : 0;
            params.tile_height = 8 * (1 + below(20));
        }
        if (!below(3))
            params.overlap_width = params.overlap_height = below(12) * 4;
        target.join_heads = below(2);
        target.streams = below(2);
        target.norm_in_place = below(2);
        target.host_free = below(3) ? 0 : (int64_t)1 << (18 + below(8));
        tsr_plan *p;
        tsr_status status = tsr_plan_make(&p, &v->decoder, &target, &e, &params);
        if (status == TSR_ERR_BUDGET && !strstr(tsr_last_error(), "host memory")) {
            int64_t need = bytes_named();
            cr_assert_gt(need, params.budget, "%s", tsr_last_error());
            params.budget = need - 1;
            cr_assert_eq(tsr_plan_make(&p, &v->decoder, &target, &e, &params), TSR_ERR_BUDGET,
                "a byte less than was said to be needed");
            params.budget = need; /* that much it is */
            status = tsr_plan_make(&p, &v->decoder, &target, &e, &params);
            refused++;
        }
        if (status == TSR_ERR_BUDGET && strstr(tsr_last_error(), "host memory"))
            continue;
        cr_assert_eq(status, TSR_OK, "%s", tsr_last_error());
        check(p);
        if (params.untiled)
            cr_assert_neq(p->info.mode, TSR_MODE_TILED);
        cr_assert(!params.tile_height || p->info.tile_height <= params.tile_height);
        cr_assert(!params.tile_width || p->info.tile_width <= params.tile_width);
        if (target.host_free)
            cr_assert_leq(p->info.bytes.host, target.host_free);
        if (params.caches == TSR_CACHES_DEVICE)
            cr_assert_eq(p->info.bytes.host, latents_host(p));
        modes[p->info.mode]++;
        tsr_plan_free(&p);
    }
    cr_assert(
        modes[TSR_MODE_UNTILED] > 40 && modes[TSR_MODE_TILED] > 40 && modes[TSR_MODE_OFFLOADED] > 10 && refused > 40,
        "the sweep sees every outcome");
    cr_assert_gt(places, SANITIZED ? 200 : 1000);
    tsr_vae_destroy(&v);
}

Test(plan, more_memory_is_never_slower) {
    tsr_vae *v = published();
    tsr_target target = shapes_target();
    double before = 0;
    int tiles = 0;
    for (double gib = 8; gib > 1; gib *= 0.8) { /* tiled: untiled in fine slices takes longer than a few tiles */
        tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
        params.precision = TSR_PRECISION_FP16;
        params.budget = (int64_t)(gib * GIB);
        tsr_plan *p = must_plan(v, &target, (tsr_extent){3, 90, 160}, &params);
        cr_assert_geq(p->info.seconds, 0.9 * before, "%.1f GiB: %s", gib, p->info.why); /* edges count, too */
        cr_assert_geq(p->info.rows * p->info.columns + 2, tiles);
        before = p->info.seconds;
        tiles = p->info.rows * p->info.columns;
        tsr_plan_free(&p);
    }
    cr_assert_gt(tiles, 8);
    tsr_vae_destroy(&v);
}

Test(plan, the_budget_comes_from_the_device_where_none_is_given) {
    tsr_vae *v = small();
    tsr_target target = shapes_target();
    tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
    tsr_extent e = {2, 16, 16};
    tsr_plan *p = must_plan(v, &target, e, &params);
    cr_assert_eq(p->info.budget, INT64_MAX);
    tsr_plan_free(&p);
    target.memory_free = 1000000000;
    target.memory_total = 2000000000;
    p = must_plan(v, &target, e, &params);
    cr_assert_eq(p->info.budget, 900000000);
    tsr_plan_free(&p);
    params.budget_share = 0.25;
    p = must_plan(v, &target, e, &params);
    cr_assert_eq(p->info.budget, 500000000);
    tsr_plan_free(&p);
    tsr_vae_destroy(&v);
}

/* ---------------------------------------------------------------- what a user may fix */

static char logged[4096];

static void log_line(void *user, tsr_log_level level, const char *line) {
    (void)user;
    if (level == TSR_LOG_WARN && strlen(logged) + strlen(line) + 2 < sizeof logged)
        strcat(strcat(logged, line), "\n");
}

Test(plan, says_when_sizes_are_rounded) {
    tsr_vae *v = small();
    int f = v->decoder.space_factor;
    tsr_target target = shapes_target();
    tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
    params.tile_width = 16 * f + 1;
    params.tile_height = 16 * f;
    params.overlap_width = 4 * f;
    params.overlap_height = 12 * f;
    tsr_log_set(TSR_LOG_WARN, log_line, NULL);
    tsr_plan *p = must_plan(v, &target, (tsr_extent){2, 40, 40}, &params);
    check(p);
    cr_assert(strstr(logged, "tile size") && strstr(logged, "half"), "%s", logged);
    cr_assert(p->info.tile_width <= 16 * f && p->info.tile_height <= 16 * f);
    cr_assert(p->info.overlap_width >= 4 * f && p->info.overlap_height >= 8 * f);
    tsr_plan_free(&p);
    *logged = 0;
    params.tile_width = params.tile_height = 16 * f;
    params.overlap_width = params.overlap_height = 4 * f;
    p = must_plan(v, &target, (tsr_extent){2, 40, 40}, &params);
    cr_assert_str_empty(logged);
    tsr_plan_free(&p);
    tsr_log_set(TSR_LOG_ERROR, NULL, NULL);
    tsr_vae_destroy(&v);
}

Test(plan, refuses_nonsense) {
    tsr_vae *v = small();
    tsr_target target = shapes_target();
    tsr_extent e = {4, 20, 20};
    const tsr_plan_params plain = TSR_PLAN_PARAMS_DEFAULT;
    tsr_plan_params bad[6];
    for (int i = 0; i < 6; i++)
        bad[i] = plain;
    bad[0].tile_width = -8;
    bad[1].overlap_height = -2;
    bad[2].budget = -1;
    bad[3].untiled = true, bad[3].tile_height = 64;
    bad[4].first_frame = 100;
    bad[5].first_frame = 5, bad[5].end_frame = 5;
    for (int i = 0; i < 6; i++)
        cr_assert_eq(status_of(v, &target, e, &bad[i]), TSR_ERR_ARGUMENT, "case %d", i);
    const tsr_extent none[] = {{0, 8, 8}, {1, -1, 8}, {1, 8, 0}, {INT32_MAX, 8, 8}, {1, INT32_MAX, 8}};
    for (int i = 0; i < 5; i++)
        cr_assert_eq(status_of(v, &target, none[i], &plain), TSR_ERR_ARGUMENT, "extent %d", i);
    tsr_vae_destroy(&v);
}

Test(plan, absurd_sizes_are_a_budget_that_no_machine_has) {
    tsr_vae *v = published();
    tsr_target target = shapes_target();
    const tsr_extent huge[] = {{1, 1000000, 1000000}, {3, 1000000, 1000000}, {200000000, 1000000, 1000000},
        {3, 1, 200000000}, {3, 200000000, 200000000}};
    for (int i = 0; i < 5; i++) {
        tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
        params.precision = TSR_PRECISION_INT8;
        params.budget = (int64_t)1 << 34;
        double begin = cpu_now();
        cr_assert_eq(status_of(v, &target, huge[i], &params), TSR_ERR_BUDGET);
        printf("%.1f ms: %s\n", 1e3 * (cpu_now() - begin), tsr_last_error());
        params.untiled = true;
        cr_assert_eq(status_of(v, &target, huge[i], &params), TSR_ERR_BUDGET);
    }
    tsr_vae_destroy(&v);
}

/* ---------------------------------------------------------------- time */

Test(plan, steps_and_weights_are_those_the_video_needs) {
    tsr_vae *v = published();
    tsr_target target = shapes_target();
    const tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
    int64_t weights[5];
    for (int latents = 1; latents <= 4; latents++) {
        tsr_plan *p = must_plan(v, &target, (tsr_extent){latents, 8, 8}, &params);
        check(p);
        weights[latents] = p->info.bytes.weights;
        cr_assert_eq(p->info.frames, tsr_frames_of_latents(4, latents));
        cr_assert_eq(p->info.bytes.caches == 0, latents == 1);
        tsr_plan_free(&p);
    }
    cr_assert(weights[1] < weights[2] && weights[2] < weights[3] && weights[3] == weights[4]);
    tsr_vae_destroy(&v);
}

Test(plan, a_longer_untiled_video_takes_no_more) {
    tsr_vae *v = published();
    tsr_target target = shapes_target();
    const tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
    tsr_plan *a = must_plan(v, &target, (tsr_extent){5, 90, 160}, &params);
    tsr_plan *b = must_plan(v, &target, (tsr_extent){425, 90, 160}, &params);
    cr_assert_eq(a->info.bytes.total, b->info.bytes.total);
    cr_assert_eq(b->info.frames, 1697);
    tsr_plan_free(&a);
    tsr_plan_free(&b);
    tsr_vae_destroy(&v);
}

Test(plan, frames_asked_for_bound_the_latents_decoded) {
    tsr_vae *v = published();
    tsr_target target = shapes_target();
    static const struct {
        int first, end, first_latent, end_latent;
    } cases[] = {{0, 0, 0, 100}, {0, 1, 0, 1}, {0, 2, 0, 2}, {0, 5, 0, 2}, {0, 6, 0, 3}, {4, 5, 0, 2},
        {149, 150, 1, 39}, {148, 150, 0, 39}, {396, 397, 62, 100}, {0, 5000, 0, 100}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
        params.first_frame = cases[i].first;
        params.end_frame = cases[i].end;
        tsr_plan *p = must_plan(v, &target, (tsr_extent){100, 8, 8}, &params);
        check(p);
        cr_assert(p->first_latent == cases[i].first_latent && p->end_latent == cases[i].end_latent,
            "case %zu: latents %d to %d", i, p->first_latent, p->end_latent);
        int all = tsr_frames_of_latents(4, 100), end = cases[i].end && cases[i].end < all ? cases[i].end : all;
        cr_assert_eq(p->info.frames, end - cases[i].first);
        cr_assert_eq(tsr_plan_step(p, p->first_latent), TSR_STEP_FIRST);
        tsr_plan_free(&p);
    }
    tsr_vae_destroy(&v);
}

Test(plan, long_tiled_videos_are_cut_into_segments) {
    tsr_vae *v = published();
    tsr_target target = shapes_target();
    tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
    params.precision = TSR_PRECISION_FP16;
    params.budget = (int64_t)(3 * GIB);
    tsr_plan *p = must_plan(v, &target, (tsr_extent){425, 90, 160}, &params);
    check(p);
    cr_assert_eq(p->info.mode, TSR_MODE_TILED);
    cr_assert_lt(p->segment, 425);
    cr_assert_geq(p->frames_in_flight, 4 * p->segment);
    cr_assert_gt(p->parked_sets, 0);
    tsr_plan_free(&p);
    params.caches = TSR_CACHES_DEVICE; /* neither all tiles' caches nor all frames fit into that */
    cr_assert_eq(status_of(v, &target, (tsr_extent){425, 90, 160}, &params), TSR_ERR_BUDGET);
    p = must_plan(v, &target, (tsr_extent){20, 90, 160}, &params); /* all frames */
    check(p);
    cr_assert(p->parked_sets == 0 && p->segment == 20);
    tsr_plan_free(&p);
    params.caches = TSR_CACHES_HOST;
    p = must_plan(v, &target, (tsr_extent){425, 90, 160}, &params);
    check(p);
    cr_assert(p->parked_sets > 0 && p->cache_sets == 1 && p->segment < 425);
    tsr_plan_free(&p);
    target.host_free = (int64_t)1 << 30; /* less than the caches of all tiles */
    params.caches = TSR_CACHES_AUTO;
    cr_assert_eq(status_of(v, &target, (tsr_extent){425, 90, 160}, &params), TSR_ERR_BUDGET);
    cr_assert(strstr(tsr_last_error(), "host memory"), "%s", tsr_last_error());
    tsr_vae_destroy(&v);
}

/* ---------------------------------------------------------------- words */

Test(plan, for_watching_frames_become_whole_early) {
    tsr_vae *v = small();
    tsr_target t = shapes_target();
    tsr_extent e = {9, 24, 24};
    tsr_plan_params params = {
        .tile_width = 64, .tile_height = 64, .overlap_width = 16, .overlap_height = 16, .budget = 8ll << 30};
    tsr_plan *p = must_plan(v, &t, e, &params);
    params.live = true;
    tsr_plan *live = must_plan(v, &t, e, &params);
    cr_assert(p->y.tiles * p->x.tiles > 1 && live->info.tile_width == p->info.tile_width);
    cr_assert_gt(p->segment, 1, "the case shows nothing");
    cr_assert_eq(live->segment, 1);
    check(live);
    tsr_plan_free(&live);
    params.budget = p->info.bytes.total; /* no room for all caches */
    params.caches = TSR_CACHES_DEVICE;
    live = must_plan(v, &t, e, &params);
    cr_assert_eq(live->segment, p->segment);
    tsr_plan_free(&live);
    tsr_plan_free(&p);
    tsr_vae_destroy(&v);
}

Test(plan, is_told_in_words) {
    tsr_vae *v = published();
    tsr_target target = shapes_target();
    for (double gib = 40; gib > 1; gib /= 2.5) {
        tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
        params.precision = TSR_PRECISION_FP16;
        params.budget = (int64_t)(gib * GIB);
        tsr_plan *p = must_plan(v, &target, (tsr_extent){9, 90, 160}, &params);
        char *text = tsr_plan_text(p), number[32];
        cr_assert_not_null(text);
        cr_assert(strstr(text, p->info.why) && strstr(text, p->info.runner_up));
        cr_assert(strstr(text, tsr_bytes_text(number, p->info.bytes.total)));
        for (const char *c = text, *end; *c; c = end + 1) {
            end = strchr(c, '\n');
            cr_assert(end && end - c <= 110, "lines end and fit a terminal: %.*s", end ? (int)(end - c) : 10, c);
        }
        free(text);
        tsr_plan_free(&p);
    }
    tsr_vae_destroy(&v);
}
