#include <tessera/tune.h>

#include "session/steps.h"

#include <math.h>
#include <stdlib.h>

/* A race: the first step of a dozen sizes, a tenth of a later one's work; both of the best of these; those near the
 * best again. */
enum {
    LEAST_SIDE = 64, /* output pixels: below that a tile is mostly overlap */
    LEAST_TRIED = 4,
    SHARE_TRIED = 4, /* and one more of so many */
    FINALISTS = 3,   /* tiles that are measured */
    STEP_RUNS = 3,   /* of every kind of step in a measurement, the median counts */
    AGAIN = 3,       /* points that are measured again, in turn */
};
#define LONG_ENOUGH 0.25 /* seconds of one kind of step: a longer one is neither warmed up nor run again */
#define NEAR 1.1         /* times the best: measured again */
#define LATE 1.25        /* times what the others let expect: run again, for something else may have had the machine */

typedef struct sample { /* what a table's point does not show */
    tsr_plan_params params;
    double first; /* seconds of the video at the rate of its first step; 0: that was not run */
} sample;

typedef struct tuning {
    tsr_engine *e;
    tsr_model *m;
    const tsr_tune_params *params;
    tsr_tune_table *table;
    sample *sample;  /* [points] */
    tsr_plan *ready; /* the last one that ran: its weights serve the next */
    double begin;
} tuning;

/* ---------------------------------------------------------------- points */

static tsr_status add_point(tuning *t, const tsr_plan_info *i, const tsr_plan_params *params) {
    tsr_tune_table *table = t->table;
    size_t n = (size_t)table->points + 1;
    tsr_tune_point *points = realloc(table->point, n * sizeof *points);
    if (points)
        table->point = points;
    sample *samples = realloc(t->sample, n * sizeof *samples);
    if (samples)
        t->sample = samples;
    if (!points || !samples)
        return tsr_fail(TSR_ERR_MEMORY, "tune: no memory");
    points[n - 1] = (tsr_tune_point){
        .mode = i->mode,
        .tile_width = i->tile_width,
        .tile_height = i->tile_height,
        .overlap_width = i->overlap_width,
        .overlap_height = i->overlap_height,
        .columns = i->columns,
        .rows = i->rows,
        .predicted = i->seconds > 0 ? i->seconds : i->flops * 1e-12,
        .planned_bytes = i->bytes.total,
    };
    samples[n - 1] = (sample){.params = *params};
    table->points = (int)n;
    return TSR_OK;
}

static bool has(const tsr_tune_table *table, const tsr_plan_info *i) {
    for (int k = 0; k < table->points; k++)
        if (table->point[k].tile_width == i->tile_width && table->point[k].tile_height == i->tile_height)
            return true;
    return false;
}

/* A plan with these params becomes a point, unless it does not fit or is there already. */
static tsr_status try_params(tuning *t, const tsr_plan_params *params) {
    tsr_plan *p = NULL;
    tsr_status status = tsr_plan_create(&p, t->e, t->m, &t->params->extent, params);
    if (status == TSR_ERR_BUDGET)
        return TSR_OK;
    if (status != TSR_OK)
        return status;
    const tsr_plan_info *i = tsr_plan_get_info(p);
    if (!has(t->table, i))
        status = add_point(t, i, params);
    t->table->width = i->width;
    t->table->height = i->height;
    t->table->frames = i->frames;
    t->table->precision = i->precision;
    t->table->device = t->e->backend->v->name;
    tsr_plan_destroy(&p);
    return status;
}

/* Untiled, then every width with every height, each a quarter less than the one before. */
static tsr_status list_points(tuning *t) {
    const tsr_extent *x = &t->params->extent;
    int factor = tsr_model_get_info(t->m)->space_factor;
    tsr_plan_params params = t->params->plan;
    params.tile_width = params.tile_height = 0;
    params.untiled = true;
    tsr_status status = try_params(t, &params);
    params.untiled = false;
    for (int h = x->height; status == TSR_OK && (h == x->height || h * factor >= LEAST_SIDE); h = h * 3 / 4)
        for (int w = x->width; status == TSR_OK && (w == x->width || w * factor >= LEAST_SIDE); w = w * 3 / 4) {
            params.tile_width = w * factor;
            params.tile_height = h * factor;
            status = h == x->height && w == x->width ? TSR_OK : try_params(t, &params);
            if (w == 1)
                break;
        }
    return status == TSR_OK && !t->table->points
               ? tsr_fail(TSR_ERR_BUDGET, "tune: no tile of %d pixels or more fits the budget; raise it", LEAST_SIDE)
               : status;
}

/* ---------------------------------------------------------------- measuring */

/* The median time of one kind of step, at most so many runs, and one before them to warm up. */
static tsr_status time_step(tsr_steps *s, tsr_step step, int most, double *out) {
    double run[STEP_RUNS], begin = tsr_now(), sum = 0;
    tsr_status status = tsr_steps_run(s, step);
    int n = 0;
    *out = tsr_now() - begin;
    if (status != TSR_OK || *out >= LONG_ENOUGH)
        return status;
    while (status == TSR_OK && n < most && sum < LONG_ENOUGH) {
        begin = tsr_now();
        status = tsr_steps_run(s, step);
        sum += run[n++] = tsr_now() - begin;
    }
    *out = tsr_median(run, n);
    return status;
}

/* Seconds that all steps of all tiles would take. So many kinds of steps are run, the rest follows by FLOPs: a later
 * step does the second's work but for where its caches come from, and is only run to judge others by. */
static tsr_status time_plan(tsr_steps *s, int kinds, double *out) {
    const tsr_plan *p = s->plan;
    double seconds[TSR_STEP_COUNT] = {0}, sum = 0;
    for (int k = 0; k < TSR_STEP_COUNT && p->program[k]; k++) {
        tsr_status status = k < kinds ? time_step(s, (tsr_step)k, kinds > 1 ? STEP_RUNS : 1, &seconds[k]) : TSR_OK;
        if (status != TSR_OK)
            return status;
        if (k >= kinds)
            seconds[k] = seconds[k - 1] * tsr_program_flops(p->program[k]) / tsr_program_flops(p->program[k - 1]);
    }
    for (int i = p->first_latent; i < p->end_latent; i++)
        sum += seconds[tsr_plan_step(p, i)];
    *out = sum * p->info.columns * p->info.rows;
    return TSR_OK;
}

static void find_best(tsr_tune_table *table) {
    table->best = table->best_tiled = -1;
    for (int i = 0; i < table->points; i++) {
        const tsr_tune_point *p = table->point;
        if (!p[i].runs)
            continue;
        if (table->best < 0 || p[i].seconds < p[table->best].seconds)
            table->best = i;
        if (p[i].mode == TSR_MODE_TILED && (table->best_tiled < 0 || p[i].seconds < p[table->best_tiled].seconds))
            table->best_tiled = i;
    }
}

static tsr_status tell(tuning *t, int i) {
    t->table->seconds = tsr_now() - t->begin;
    bool go_on = !t->params->on_point || t->params->on_point(t->params->user, t->table, i);
    return go_on && !atomic_load(&t->e->cancelled) ? TSR_OK : tsr_fail(TSR_ERR_CANCELLED, "tune: stopped");
}

/* Where it takes far longer than hoped for, the better of two. */
static tsr_status run_point(tuning *t, int i, int kinds, double hoped, double *out) {
    tsr_plan *p = NULL;
    tsr_steps steps = {0};
    double again;
    tsr_status status;
    TSR_TRY(tsr_plan_create(&p, t->e, t->m, &t->params->extent, &t->sample[i].params));
    TSR_TRY(tsr_steps_open(&steps, t->e, p));
    TSR_TRY(time_plan(&steps, kinds, out));
    if (*out > LATE * hoped) {
        TSR_TRY(time_plan(&steps, kinds, &again));
        *out = fmin(*out, again);
    }
    t->table->point[i].peak_bytes = (int64_t)tsr_mem_peak() - steps.others + p->info.bytes.frames;
error:
    tsr_steps_close(&steps);
    tsr_plan_destroy(&t->ready);
    t->ready = p;
    return status;
}

/* Seconds that the point may take: what its first step says, times what those measured took of that, at best. */
static double hoped(const tuning *t, int i) {
    double ratio = INFINITY;
    for (int k = 0; k < t->table->points; k++)
        if (t->table->point[k].runs && t->sample[k].first > 0)
            ratio = fmin(ratio, t->table->point[k].seconds / t->sample[k].first);
    return t->sample[i].first * (ratio < INFINITY ? ratio : 1);
}

static double per_mpx(const tsr_tune_table *t, double seconds) {
    return 1e9 * seconds / ((double)t->frames * t->width * t->height);
}

/* What is said of points of which only the first step was run. */
static void expect(tuning *t) {
    for (int i = 0; i < t->table->points; i++) {
        tsr_tune_point *p = &t->table->point[i];
        p->expected = hoped(t, i);
        if (!p->runs)
            p->ms_per_mpx = per_mpx(t->table, p->expected);
    }
}

static tsr_status measure(tuning *t, int i) {
    tsr_tune_point *point = &t->table->point[i];
    double seconds;
    int kinds = t->params->exhaustive ? TSR_STEP_COUNT : TSR_STEP_SECOND + 1;
    double hope = t->table->best >= 0 && t->sample[i].first > 0 ? hoped(t, i) : INFINITY;
    tsr_status status = run_point(t, i, kinds, hope, &seconds);
    if (status != TSR_OK)
        return status;
    point->seconds = point->runs ? fmin(point->seconds, seconds) : seconds;
    point->runs++;
    point->ms_per_mpx = per_mpx(t->table, point->seconds);
    expect(t);
    find_best(t->table);
    return tell(t, i);
}

/* ---------------------------------------------------------------- the search */

/* Small tables: insertion sorts keep point and sample together. */
static void sort_points(tuning *t) {
    tsr_tune_point *p = t->table->point;
    for (int i = 1; i < t->table->points; i++)
        for (int k = i;
             k > 0 && (int64_t)p[k].tile_width * p[k].tile_height > (int64_t)p[k - 1].tile_width * p[k - 1].tile_height;
             k--) {
            tsr_tune_point point = p[k];
            sample s = t->sample[k];
            p[k] = p[k - 1];
            t->sample[k] = t->sample[k - 1];
            p[k - 1] = point;
            t->sample[k - 1] = s;
        }
}

/* Seconds at the rate of its first step that the point may take: as predicted, times what those tried took of their
 * predictions, the nearer in the number of pixels the more. Predictions know FLOPs, bytes and overlaps, but not which
 * tiles a CPU's caches hold. */
static double guess(const tuning *t, int i) {
    const tsr_tune_point *p = t->table->point;
    double sum = 0, weights = 0;
    for (int k = 0; k < t->table->points; k++) {
        if (!(t->sample[k].first > 0))
            continue;
        double away = log2((double)p[i].tile_width * p[i].tile_height / ((double)p[k].tile_width * p[k].tile_height));
        double weight = 1 / (0.05 + away * away);
        sum += weight * t->sample[k].first / p[k].predicted;
        weights += weight;
    }
    return weights > 0 ? p[i].predicted * sum / weights : p[i].predicted;
}

static tsr_status try_first(tuning *t, int i, bool any_tried) {
    tsr_status status = run_point(t, i, 1, any_tried ? guess(t, i) : INFINITY, &t->sample[i].first);
    if (status != TSR_OK)
        return status;
    expect(t);
    return tell(t, i);
}

/* What others have to beat: the best of tiles, which is what is kept, where there are some. */
static double to_beat(const tsr_tune_table *t) {
    return t->point[t->best_tiled < 0 ? t->best : t->best_tiled].seconds;
}

/* Of those whose first step was run, or was not, and that are not measured; -1: none. */
static int least_guess(const tuning *t, int begin, int end, bool tried) {
    int best = -1;
    double least = INFINITY;
    for (int i = begin; i < end; i++) {
        bool other = (t->sample[i].first > 0) != tried || t->table->point[i].runs;
        double seconds = other ? INFINITY : guess(t, i);
        best = seconds < least ? i : best;
        least = fmin(seconds, least);
    }
    return best;
}

/* Whose first step is run after so many, -1: none. First the promising one of each quarter of the sizes, then those
 * that may win. Points are sorted by size. */
static int next_tried(const tuning *t, int tried) {
    int n = t->table->points;
    if (tried < LEAST_TRIED && n >= LEAST_TRIED)
        return least_guess(t, n * tried / LEAST_TRIED, n * (tried + 1) / LEAST_TRIED, false);
    return tried < LEAST_TRIED + n / SHARE_TRIED ? least_guess(t, 0, n, false) : -1;
}

/* Which is measured next, -1: none. Untiled first: tiles are held against it. By the guess, in which a size's own first
 * step counts as much as that of all its neighbours: one that was lucky does not win by that alone. */
static int next_measured(const tuning *t) {
    const tsr_tune_table *table = t->table;
    int tiled = 0;
    for (int i = 0; i < table->points; i++) {
        bool is_tiled = table->point[i].mode == TSR_MODE_TILED;
        if (!is_tiled && t->sample[i].first > 0 && !table->point[i].runs)
            return i;
        tiled += is_tiled && table->point[i].runs;
    }
    return tiled < FINALISTS ? least_guess(t, 0, table->points, true) : -1;
}

/* Those near the best are measured again, one after the other, so that what else the machine does hits all alike. */
static tsr_status measure_again(tuning *t) {
    tsr_tune_point *p = t->table->point;
    int again[AGAIN], n = 0;
    double limit = NEAR * to_beat(t->table);
    for (double last = to_beat(t->table) / NEAR; n < AGAIN; n++) {
        int next = -1;
        for (int i = 0; i < t->table->points; i++)
            if (p[i].runs && p[i].seconds > last && p[i].seconds <= limit &&
                (next < 0 || p[i].seconds < p[next].seconds))
                next = i;
        if (next < 0)
            break;
        again[n] = next;
        last = p[next].seconds;
    }
    tsr_status status = TSR_OK;
    for (int i = 0; n > 1 && status == TSR_OK && i < n; i++)
        status = measure(t, again[i]);
    return status;
}

static tsr_status measure_all(tuning *t) {
    tsr_status status = TSR_OK;
    for (int i = 0; i < t->table->points && status == TSR_OK; i++)
        status = measure(t, i);
    return status;
}

static tsr_status search(tuning *t) {
    tsr_status status = tell(t, -1);
    if (status == TSR_OK && t->params->exhaustive)
        return measure_all(t);
    for (int n = 0, i; status == TSR_OK && (i = next_tried(t, n)) >= 0; n++)
        status = try_first(t, i, n > 0);
    for (int i; status == TSR_OK && (i = next_measured(t)) >= 0;)
        status = measure(t, i);
    return status == TSR_OK ? measure_again(t) : status;
}

tsr_status tsr_tune(tsr_tune_table **out, tsr_engine *e, tsr_model *m, const tsr_tune_params *params) {
    tuning t = {.e = e, .m = m, .params = params, .begin = tsr_now(), .table = calloc(1, sizeof *t.table)};
    tsr_status status;
    *out = NULL;
    if (!t.table)
        return tsr_fail(TSR_ERR_MEMORY, "tune: no memory");
    t.table->best = t.table->best_tiled = -1;
    atomic_store(&e->cancelled, false);
    atomic_store(&e->cancel, false);
    TSR_TRY(list_points(&t));
    sort_points(&t);
    status = search(&t);
    t.table->seconds = tsr_now() - t.begin;
    if (status == TSR_OK && t.table->best_tiled >= 0) {
        const tsr_plan_params *best = &t.sample[t.table->best_tiled].params;
        tsr_tuned_keep(e, m, t.table->precision, best->tile_width, best->tile_height);
    }
error:
    tsr_plan_destroy(&t.ready);
    free(t.sample);
    if (status == TSR_OK || status == TSR_ERR_CANCELLED)
        *out = t.table;
    else
        tsr_tune_free(&t.table);
    return status;
}

void tsr_tune_free(tsr_tune_table **table) {
    if (*table)
        free((*table)->point);
    free(*table);
    *table = NULL;
}
