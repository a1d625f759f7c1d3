/* Plans in one line: made again on a device of other rates they are the same, and nothing else is made of them. */
#include "random.h"
#include "shapes.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static const synth_config config = {.channels = {32, 64, 64}, .layers = 1, .latent = 8, .decoder = true};

static bool same_places(const size_t *a, const size_t *b, int n) {
    return a && b ? memcmp(a, b, (size_t)n * sizeof *a) == 0 : !a && !b;
}

/* Everything has the same place and every transfer the same time. */
static void check_alike(const tsr_plan *a, const tsr_plan *b) {
    cr_assert(memcmp(&a->info.bytes, &b->info.bytes, sizeof a->info.bytes) == 0 && a->info.budget == b->info.budget);
    cr_assert(a->segment == b->segment && a->cache_sets == b->cache_sets && a->parked_sets == b->parked_sets);
    cr_assert(a->first_latent == b->first_latent && a->end_latent == b->end_latent && a->info.mode == b->info.mode);
    cr_assert(a->slice_level == b->slice_level && a->band == b->band && a->page_level == b->page_level);
    cr_assert(a->y.tiles == b->y.tiles && a->x.tiles == b->x.tiles && a->tile_h == b->tile_h && a->tile_w == b->tile_w);
    cr_assert(memcmp(a->y.latent, b->y.latent, (size_t)a->y.tiles * sizeof *a->y.latent) == 0);
    cr_assert(memcmp(a->x.latent, b->x.latent, (size_t)a->x.tiles * sizeof *a->x.latent) == 0);
    for (tsr_step s = 0; s < TSR_STEP_COUNT && a->program[s]; s++) {
        const tsr_program *g = a->program[s];
        cr_assert(b->program[s] && g->ops == b->program[s]->ops && g->buffers == b->program[s]->buffers);
        const int *at = a->move_at[s];
        cr_assert(same_places(a->buffer_at[s], b->buffer_at[s], g->buffers));
        cr_assert(same_places(a->scratch_at[s], b->scratch_at[s], g->ops));
        cr_assert(at ? memcmp(at, b->move_at[s], (size_t)g->ops * sizeof *at) == 0 : !b->move_at[s]);
    }
    int caches = a->program[TSR_STEP_FIRST]->caches;
    cr_assert(same_places(a->cache_at, b->cache_at, caches) && same_places(a->host_at, b->host_at, caches));
    cr_assert_str_eq(a->info.recipe, b->info.recipe);
}

/* Params of some task, and a device of some speed. */
static tsr_plan_params anything(tsr_target *t) {
    tsr_plan_params p = TSR_PLAN_PARAMS_DEFAULT;
    p.precision = TSR_PRECISION_F32 + below(5);
    p.budget = 500000 + ((int64_t)1 << (16 + below(11)));
    p.caches = below(2) ? TSR_CACHES_AUTO : TSR_CACHES_HOST;
    p.untiled = !below(4);
    p.first_frame = below(3) ? 0 : below(20);
    t->bands = t->host_is_device = below(4) > 0;
    t->streams = !t->bands || below(3);
    t->flops_f32 = t->flops_16 = t->flops_8 = 1e9 * (1 << below(16));
    t->bandwidth = 1e8 * (1 << below(14));
    t->link_bandwidth = 1e8 * (1 << below(10));
    return p;
}

/* On a device that has become faster or slower the recipe gives the same plan, where choosing gives another. */
Test(recipe, gives_the_plan_again) {
    tsr_vae *v = shapes_vae(&config);
    tsr_target target = shapes_target(), other = target;
    int modes[TSR_MODE_EXACT + 1] = {0}, others = 0;
    for (int c = 0; c < 240; c++) {
        tsr_extent e = {6 + below(20), 1 + below(24), 1 + below(24)};
        tsr_plan_params params = anything(&target);
        params.exact = target.bands && !below(2);
        if (!params.exact && !params.untiled && below(2))
            params.tile_width = params.tile_height = 8 * (2 + below(12));
        tsr_plan *p, *anew;
        if (tsr_plan_make(&p, &v->decoder, &target, &e, &params) != TSR_OK)
            continue;
        tsr_plan_params again = {.recipe = p->info.recipe};
        other = target;
        other.flops_f32 = other.flops_16 = other.flops_8 = 1e12;
        other.bandwidth = 2e11;
        other.link_bandwidth = 1e8;
        other.memory_free = 1 << 20;
        tsr_plan *q;
        cr_assert_eq(tsr_plan_make(&q, &v->decoder, &other, &e, &again), TSR_OK, "%s", tsr_last_error());
        check_alike(p, q);
        cr_assert_null(q->params.recipe);
        if (tsr_plan_make(&anew, &v->decoder, &other, &e, &params) == TSR_OK)
            others += strcmp(anew->info.recipe, p->info.recipe) != 0;
        modes[p->info.mode]++;
        tsr_plan_free(&anew);
        tsr_plan_free(&q);
        tsr_plan_free(&p);
    }
    for (tsr_mode m = TSR_MODE_UNTILED; m <= TSR_MODE_EXACT; m++)
        cr_assert_gt(modes[m], 3, "mode %d: %d", (int)m, modes[m]);
    cr_assert_gt(others, 5, "%d plans are others", others);
    tsr_vae_destroy(&v);
}

static void expect_no_plan(
    const tsr_vae *v, tsr_target *t, tsr_extent e, const char *recipe, int64_t budget, tsr_status status) {
    tsr_plan_params params = {.recipe = recipe, .budget = budget};
    tsr_plan *p;
    cr_assert_eq(tsr_plan_make(&p, &v->decoder, t, &e, &params), status, "%s: %s", recipe, tsr_last_error());
    cr_assert_null(p);
}

/* The recipe with this in place of that, its sum made right again; static. */
static const char *forged(const char *recipe, const char *that, const char *this) {
    static char text[1024];
    const char *at = strstr(recipe, that), *end = strstr(recipe, " sum ");
    cr_assert(at && at < end, "%s: %s", recipe, that);
    snprintf(text, sizeof text, "%.*s%s%.*s", (int)(at - recipe), recipe, this, (int)(end - at) - (int)strlen(that),
        at + strlen(that));
    uint64_t sum = 0xcbf29ce484222325;
    for (const char *c = text; *c; c++)
        sum = (sum ^ (unsigned char)*c) * 0x100000001b3;
    snprintf(text + strlen(text), 64, " sum %016llx", (unsigned long long)sum);
    return text;
}

Test(recipe, that_does_not_fit_is_refused) {
    tsr_vae *v = shapes_vae(&config);
    tsr_target t = shapes_target();
    tsr_extent e = {5, 20, 24};
    tsr_plan_params params = {.tile_width = 64, .tile_height = 64, .overlap_width = 16, .overlap_height = 16};
    params.budget = 8ll << 30;
    tsr_plan *p;
    cr_assert_eq(tsr_plan_make(&p, &v->decoder, &t, &e, &params), TSR_OK, "%s", tsr_last_error());
    char recipe[1024];
    snprintf(recipe, sizeof recipe, "%s", p->info.recipe);
    int64_t total = p->info.bytes.total;
    tsr_plan_free(&p);
    for (size_t n = strlen(recipe), i = 0; i < n; i += 3) { /* any digit or letter */
        char damaged[1024];
        memcpy(damaged, recipe, n + 1);
        damaged[i] = damaged[i] == '7' ? '6' : '7';
        expect_no_plan(v, &t, e, damaged, 0, TSR_ERR_FORMAT);
        damaged[i] = 0;
        expect_no_plan(v, &t, e, damaged, 0, TSR_ERR_FORMAT);
    }
    expect_no_plan(v, &t, (tsr_extent){5, 20, 23}, recipe, 0, TSR_ERR_FORMAT);
    expect_no_plan(v, &t, e, recipe, total - 1, TSR_ERR_BUDGET);
    t.align = 4096; /* another device */
    expect_no_plan(v, &t, e, recipe, 0, TSR_ERR_FORMAT);
    t.align = 256;
    static const char *const bad[][2] = {{"mode 3", "mode 1"}, {"mode 3", "mode 2"}, {"mode 3", "mode 4"},
        {"mode 3", "mode 77"}, {"rows 16/", "rows 1600/"}, {"rows 16/4", "rows 16/9"}, {"rows 16/", "rows 0/"},
        {"segment ", "segment -"}, {"sets ", "sets 9"}, {"bands 0/0", "bands 2/1"}, {"slices ", "slices 9"},
        {"precision ", "precision 9"}, {"caches 0", "caches -1"}, {"room 0/0", "room -5/0"},
        {"frames 0-", "frames 99-"}};
    expect_no_plan(v, &t, e, forged(recipe, "budget 8", "budget 9"), total - 1, TSR_ERR_BUDGET); /* forged well */
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tsr_plan_params again = {.recipe = forged(recipe, bad[i][0], bad[i][1])};
        cr_assert_neq(tsr_plan_make(&p, &v->decoder, &t, &e, &again), TSR_OK, "%s", again.recipe);
        cr_assert_null(p);
    }
    tsr_vae_destroy(&v);
}
