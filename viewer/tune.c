/* tessera tune */
#include "chart.h"
#include "cli.h"

#include <stdlib.h>
#include <string.h>

static void point_event(const tsr_tune_point *p) {
    json j;
    json_begin(&j, "candidate");
    json_text(&j, "mode", mode_name(p->mode));
    json_pair(&j, "tile", p->tile_width, p->tile_height);
    json_pair(&j, "overlap", p->overlap_width, p->overlap_height);
    json_integer(&j, "tiles", (int64_t)p->columns * p->rows);
    json_number(&j, "predicted", p->predicted);
    json_integer(&j, "planned_bytes", p->planned_bytes);
    json_integer(&j, "runs", p->runs);
    if (p->expected > 0)
        json_number(&j, "expected", p->expected);
    if (p->runs) {
        json_number(&j, "seconds", p->seconds);
        json_number(&j, "ms_per_mpx", p->ms_per_mpx);
        json_integer(&j, "peak_bytes", p->peak_bytes);
    }
    json_end(&j);
}

static void table_events(const tsr_tune_table *t) {
    for (int i = 0; i < t->points; i++)
        point_event(&t->point[i]);
    if (t->best < 0)
        return;
    const tsr_tune_point *best = &t->point[t->best];
    json j;
    json_begin(&j, "tuned");
    json_text(&j, "device", t->device);
    json_text(&j, "precision", tsr_precision_name(t->precision));
    json_pair(&j, "tile", best->tile_width, best->tile_height);
    json_text(&j, "mode", mode_name(best->mode));
    if (t->best_tiled >= 0)
        json_pair(&j, "kept", t->point[t->best_tiled].tile_width, t->point[t->best_tiled].tile_height);
    json_number(&j, "seconds", t->seconds);
    json_end(&j);
}

static void print_point(const tsr_tune_point *p, const char *mark) {
    char size[32], memory[32];
    snprintf(size, sizeof size, "%dx%d", p->tile_width, p->tile_height);
    printf("%-11s %-9s %6d %9.2f", size, mode_name(p->mode), p->columns * p->rows, p->predicted);
    if (p->runs)
        printf(" %9.2f %9.2f %12s  %s\n", p->seconds, p->ms_per_mpx, bytes_text(memory, p->peak_bytes), mark);
    else if (p->expected > 0)
        printf(" %9.2f %9.2f %12s  by its first step\n", p->expected, p->ms_per_mpx, bytes_text(memory, p->peak_bytes));
    else
        printf(" %9s %9s %12s\n", "-", "-", bytes_text(memory, p->planned_bytes));
}

static void print_table(const tsr_tune_table *t) {
    printf("%-11s %-9s %6s %9s %9s %9s %12s\n", "tile", "", "tiles", "predicted", "seconds", "ms/Mpx", "memory");
    for (int i = 0; i < t->points; i++)
        print_point(&t->point[i], i == t->best ? "best" : i == t->best_tiled ? "best of the tiles" : "");
    if (t->best < 0)
        return;
    const tsr_tune_point *best = &t->point[t->best];
    printf("best: %dx%d, %.2f s for %d frame%s of %dx%d, %s on %s\n", best->tile_width, best->tile_height,
        best->seconds, t->frames, plural(t->frames), t->width, t->height, tsr_precision_name(t->precision), t->device);
    if (t->best_tiled >= 0)
        printf("kept: %dx%d, for plans that have to be tiled; untiled stays first where it fits, for it has no seams\n",
            t->point[t->best_tiled].tile_width, t->point[t->best_tiled].tile_height);
}

static bool on_point(void *user, const tsr_tune_table *t, int i) {
    (void)user;
    if (i < 0) {
        say(TSR_LOG_INFO, "tune: %d sizes fit; those that may win are measured", t->points);
    } else {
        const tsr_tune_point *p = &t->point[i];
        say(TSR_LOG_INFO, "tune: %4.0f s  %dx%d in %d: %.2f s%s, predicted %.2f", t->seconds, p->tile_width,
            p->tile_height, p->columns * p->rows, p->runs ? p->seconds : p->expected,
            p->runs ? "" : " by its first step", p->predicted);
    }
    return !interrupted();
}

/* One picture of this size; nothing is written yet. */
static tsr_status open_chart(tsr_writer **w, const options *o, int width, int height) {
    tsr_writer_params p = o->writer;
    p.format = TSR_FORMAT_PNG;
    p.frames = 1;
    p.width = width;
    p.height = height;
    return tsr_writer_open(w, &p);
}

/* What can be said against the chart's name before hours are spent. */
static int check_chart(options *o) {
    const char *path = o->writer.path, *suffix = path ? strrchr(path, '.') : NULL;
    if (!path)
        return EXIT_OK;
    if (!suffix || strcmp(suffix, ".png") != 0)
        return usage_error("tune: %s; the chart is a picture, its suffix .png", path);
    tsr_writer *w = NULL;
    int status = may_write(path, &o->writer.overwrite);
    if (status == EXIT_OK)
        status = failed(open_chart(&w, o, 1, 1));
    tsr_writer_close(&w);
    return status;
}

static int write_chart(const tsr_tune_table *t, const options *o) {
    tsr_writer *w = NULL;
    int width, height;
    char title[128];
    snprintf(title, sizeof title, "%d frame%s of %dx%d, %s on %s", t->frames, plural(t->frames), t->width, t->height,
        tsr_precision_name(t->precision), t->device);
    unsigned char *rgb = chart_draw(t, title, &width, &height);
    if (!rgb)
        return failure(TSR_ERR_MEMORY, "tune: no memory for the chart");
    tsr_frame frame = {.width = width,
        .height = height,
        .pixels = TSR_PIXELS_RGB8,
        .data = rgb,
        .bytes = 3 * (size_t)width * (size_t)height};
    tsr_status status = open_chart(&w, o, width, height);
    if (status == TSR_OK)
        status = tsr_writer_frame(w, &frame);
    if (status == TSR_OK)
        status = tsr_writer_finish(w);
    int done = failed(status);
    tsr_writer_close(&w);
    free(rgb);
    return done;
}

static int run(tsr_engine *e, tsr_model *m, const tsr_extent *extent, const options *o) {
    tsr_tune_table *table = NULL;
    tsr_tune_params p = TSR_TUNE_PARAMS_DEFAULT;
    p.extent = *extent;
    p.plan = o->plan;
    p.on_point = on_point;
    tsr_status done = tsr_tune(&table, e, m, &p);
    int status = interrupted() ? failure(TSR_ERR_CANCELLED, "interrupted: tune; nothing is kept") : failed(done);
    if (table && json_wanted())
        table_events(table);
    else if (table)
        print_table(table);
    if (status == EXIT_OK && o->writer.path)
        status = write_chart(table, o);
    tsr_tune_free(&table);
    return interrupted() ? EXIT_INTERRUPTED : status;
}

int cmd_tune(const options *o) {
    tsr_model *m = NULL;
    tsr_engine *e = NULL;
    tsr_latent *z = NULL;
    tsr_extent extent;
    options own = *o;
    int status = check_chart(&own);
    if (status == EXIT_OK)
        status = open_model(&m, o);
    if (status == EXIT_OK)
        status = find_extent(&extent, &z, o, m);
    if (status == EXIT_OK)
        status = create_engine(&e, o);
    catch_interrupts();
    if (status == EXIT_OK)
        status = measure_quality(e, m, z, o);
    interrupt_cancels(e);
    if (status == EXIT_OK)
        status = run(e, m, &extent, &own);
    interrupt_cancels(NULL);
    tsr_engine_destroy(&e);
    tsr_latent_close(&z);
    tsr_model_close(&m);
    return status;
}
