#include <tessera/tune.h>

#include "session/steps.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    LEAST_SIDE = 64, /* output pixels: below that a tile is mostly overlap */
    LEAST_MEASURED = 4,
    SHARE_MEASURED = 8, /* and at most one more of so many */
    STEP_RUNS = 3,      /* of every kind of step in a measurement, the median counts */
    AGAIN = 2,          /* points that are measured again, in turn, */
    ROUNDS = 2,         /* so often */
    MOST_RUNS = 1 + ROUNDS,
};
#define LONG_ENOUGH 0.25 /* seconds of one kind of step: a longer one is not run again */
#define NEAR 1.1         /* times the best: measured again */
#define HOPELESS 1.1     /* times the best is expected: not measured */

typedef struct sample { /* what a table's point does not show */
    tsr_plan_params params;
    double run[MOST_RUNS];
} sample;

typedef struct tuning {
    tsr_engine *e;
    tsr_model *m;
    const tsr_tune_params *params;
    tsr_tune_table *table;
    sample *sample; /* [points] */
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

/* The median time of one kind of step. */
static tsr_status time_step(tsr_steps *s, tsr_step step, double *out) {
    double run[STEP_RUNS];
    int n = 0;
    do {
        double begin = tsr_now();
        tsr_status status = tsr_steps_run(s, step);
        if (status != TSR_OK)
            return status;
        run[n++] = tsr_now() - begin;
    } while (n < STEP_RUNS && run[n - 1] * n < LONG_ENOUGH);
    *out = tsr_median(run, n);
    return TSR_OK;
}

/* Seconds that all steps of all tiles would take. Each kind is run once unmeasured, if it is short, to warm up. */
static tsr_status time_plan(tsr_steps *s, double *out) {
    const tsr_plan *p = s->plan;
    double seconds[TSR_STEP_COUNT] = {0}, sum = 0;
    tsr_status status = TSR_OK;
    for (tsr_step step = 0; step < TSR_STEP_COUNT && p->program[step]; step++)
        if ((status = time_step(s, step, &seconds[step])) != TSR_OK ||
            (seconds[step] < LONG_ENOUGH && (status = time_step(s, step, &seconds[step])) != TSR_OK))
            return status;
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

static tsr_status measure(tuning *t, int i) {
    tsr_tune_point *point = &t->table->point[i];
    tsr_plan *p = NULL;
    tsr_steps steps = {0};
    double run, values[MOST_RUNS];
    tsr_status status;
    TSR_TRY(tsr_plan_create(&p, t->e, t->m, &t->params->extent, &t->sample[i].params));
    TSR_TRY(tsr_steps_open(&steps, t->e, p));
    TSR_TRY(time_plan(&steps, &run));
    t->sample[i].run[point->runs++] = run;
    memcpy(values, t->sample[i].run, sizeof values);
    point->seconds = tsr_median(values, point->runs);
    point->ms_per_mpx = 1e9 * point->seconds / ((double)t->table->frames * t->table->width * t->table->height);
    point->peak_bytes = (int64_t)tsr_mem_peak() - steps.others + p->info.bytes.frames;
    find_best(t->table);
error:
    tsr_steps_close(&steps);
    tsr_plan_destroy(&p);
    return status == TSR_OK ? tell(t, i) : status;
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

/* Seconds that the point may take: as predicted, times what those measured took of their predictions, the nearer in the
 * number of pixels the more. Predictions know FLOPs, bytes and overlaps, but not which tiles a CPU's caches hold. */
static double expected(const tuning *t, int i) {
    const tsr_tune_point *p = t->table->point;
    double sum = 0, weights = 0;
    for (int k = 0; k < t->table->points; k++) {
        if (!p[k].runs)
            continue;
        double away = log2((double)p[i].tile_width * p[i].tile_height / ((double)p[k].tile_width * p[k].tile_height));
        double weight = 1 / (0.05 + away * away);
        sum += weight * p[k].seconds / p[k].predicted;
        weights += weight;
    }
    return weights > 0 ? p[i].predicted * sum / weights : p[i].predicted;
}

/* What others have to beat: the best of tiles, which is what is kept, where there are some. */
static double to_beat(const tsr_tune_table *t) {
    return t->point[t->best_tiled < 0 ? t->best : t->best_tiled].seconds;
}

static int least_expected(const tuning *t, int begin, int end) {
    int best = -1;
    double least = INFINITY;
    for (int i = begin; i < end; i++) {
        double seconds = t->table->point[i].runs ? INFINITY : expected(t, i);
        best = seconds < least ? i : best;
        least = fmin(seconds, least);
    }
    return best;
}

/* Which point is measured after so many, -1: none. First the promising one of each quarter of the sizes, then those
 * that may win. Points are sorted by size. */
static int next_point(const tuning *t, int measured) {
    const tsr_tune_table *table = t->table;
    int n = table->points;
    if (t->params->exhaustive)
        return measured < n ? measured : -1;
    if (measured < LEAST_MEASURED && n >= LEAST_MEASURED)
        return least_expected(t, n * measured / LEAST_MEASURED, n * (measured + 1) / LEAST_MEASURED);
    if (measured >= LEAST_MEASURED + n / SHARE_MEASURED)
        return -1;
    int next = least_expected(t, 0, n);
    bool hopeless = next < 0 || (measured > 0 && expected(t, next) > HOPELESS * to_beat(table));
    return hopeless ? -1 : next;
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
    for (int round = 0; n > 1 && round < ROUNDS; round++)
        for (int i = 0; status == TSR_OK && i < n; i++)
            status = measure(t, again[i]);
    return status;
}

static tsr_status search(tuning *t) {
    tsr_status status = tell(t, -1);
    for (int n = 0, i; status == TSR_OK && (i = next_point(t, n)) >= 0; n++)
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
