/* From the dials to a plan, at once, and from there to a decode, when they rest. */
#include "app.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double REST = 0.12; /* seconds without a change until the decode begins anew */
static const double SEEK_REST = 0.15;
static const int64_t REACH = 160; /* frames: causality goes back 37 latents, so no decode that is nearer is left */

/* ---------------------------------------------------------------- the dials */

static void add(positions *s, int64_t v) {
    if (s->count < (int)(sizeof s->value / sizeof *s->value) && (s->count == 0 || v > s->value[s->count - 1]))
        s->value[s->count++] = v;
}

/* Sizes of tiles along a side: the latent's grid, thinned out to some fifty, and the whole side. */
static void tile_sizes(positions *s, int side, int factor) {
    int step = (side / 48 + factor - 1) / factor * factor, first = 4 * factor;
    step = step < factor ? factor : step;
    *s = (positions){0};
    add(s, 0);
    for (int v = first; v < side; v += step)
        add(s, v);
    add(s, side);
}

void decode_scales(app *a) {
    static const tsr_precision precisions[] = {TSR_PRECISION_AUTO, TSR_PRECISION_F32, TSR_PRECISION_FP16,
        TSR_PRECISION_BF16, TSR_PRECISION_FP8, TSR_PRECISION_INT8};
    const tsr_preview_info *i = tsr_preview_get_info(a->preview);
    int factor = tsr_model_get_info(a->model)->space_factor, most = i->width > i->height ? i->width : i->height;
    tile_sizes(&a->positions_of[DIAL_TILE_WIDTH], a->set.linked ? most : i->width, factor);
    tile_sizes(&a->positions_of[DIAL_TILE_HEIGHT], i->height, factor);
    positions *s = &a->positions_of[DIAL_OVERLAP];
    *s = (positions){0};
    add(s, -1);
    for (int v = 0; v <= 256 && v <= most / 2; v += v < 64 ? factor : 2 * factor)
        add(s, v);
    s = &a->positions_of[DIAL_VRAM];
    *s = (positions){0};
    add(s, 0);
    double most_bytes = i->total_bytes > 0 ? (double)i->total_bytes : 64.0 * 1024 * 1024 * 1024;
    for (double v = 64.0 * 1024 * 1024; v <= most_bytes * 1.001; v *= pow(2, 0.25)) /* four steps double it */
        add(s, (int64_t)(v / (1 << 20) + 0.5) * (1 << 20));
    s = &a->positions_of[DIAL_PRECISION];
    *s = (positions){0};
    for (size_t k = 0; k < sizeof precisions / sizeof *precisions; k++)
        add(s, precisions[k]);
    s = &a->positions_of[DIAL_CACHES];
    *s = (positions){.count = 3, .value = {TSR_CACHES_AUTO, TSR_CACHES_DEVICE, TSR_CACHES_HOST}};
}

/* The position whose value is nearest; auto only for auto. */
int decode_position(const app *a, dial d) {
    const positions *s = &a->positions_of[d];
    int64_t v = a->set.value[d];
    int best = 0;
    if (!s->count || v == s->value[0])
        return 0;
    for (int i = 1; i < s->count; i++)
        if (!best || llabs(s->value[i] - v) < llabs(s->value[best] - v))
            best = i;
    return best;
}

void decode_set(app *a, dial d, int position, bool resting) {
    const positions *s = &a->positions_of[d];
    if (position < 0 || position >= s->count)
        return;
    bool changed = a->set.value[d] != s->value[position];
    a->set.value[d] = s->value[position];
    if (changed)
        decode_changed(a, resting);
    else if (resting && a->start_at > 0)
        a->start_at = a->now;
}

void decode_step(app *a, dial d, int by) {
    if (a->positions_of[d].count)
        decode_set(a, d, decode_position(a, d) + by, false);
}

const char *decode_text(const app *a, dial d, int64_t v, char buf[64]) {
    const tsr_preview_info *i = tsr_preview_get_info(a->preview);
    char bytes[32];
    switch (d) {
    case DIAL_TILE_WIDTH:
    case DIAL_TILE_HEIGHT:
        if (v == 0)
            return "auto";
        snprintf(
            buf, 64, v >= (d == DIAL_TILE_WIDTH ? i->width : i->height) ? "%lld px, whole" : "%lld px", (long long)v);
        return buf;
    case DIAL_OVERLAP:
        if (v < 0)
            return "auto";
        snprintf(buf, 64, "%lld px", (long long)v);
        return buf;
    case DIAL_VRAM:
        if (v == 0)
            return "auto";
        snprintf(buf, 64, "%s", bytes_text(bytes, v));
        return buf;
    case DIAL_PRECISION:
        return tsr_precision_name((tsr_precision)v);
    case DIAL_CACHES:
        return v == TSR_CACHES_DEVICE ? "device" : v == TSR_CACHES_HOST ? "host" : "auto";
    case DIALS:
        break;
    }
    return "";
}

/* ---------------------------------------------------------------- plans */

tsr_plan_params decode_params(const app *a, const settings *s) {
    tsr_plan_params p = a->o->plan;
    int w = (int)s->value[DIAL_TILE_WIDTH],
        h = (int)(s->linked ? s->value[DIAL_TILE_WIDTH] : s->value[DIAL_TILE_HEIGHT]);
    const tsr_preview_info *i = tsr_preview_get_info(a->preview);
    p.untiled = false;
    p.tile_width = w > i->width ? i->width : w;
    p.tile_height = h > i->height ? i->height : h;
    p.overlap_width = p.overlap_height = s->blend ? (int)s->value[DIAL_OVERLAP] : 0;
    p.precision = (tsr_precision)s->value[DIAL_PRECISION];
    p.quality =
        a->measured && p.precision == a->o->plan.precision ? p.quality : 0; /* of the precision it was given with */
    p.caches = (tsr_cache_home)s->value[DIAL_CACHES];
    if (s->value[DIAL_VRAM] > 0) {
        p.budget = s->value[DIAL_VRAM];
        p.budget_share = 0;
    }
    p.first_frame = p.end_frame = 0;
    p.live = true;
    return p;
}

static tsr_status make_plan(app *a, int64_t first, tsr_plan **out) {
    const tsr_latent_info *z = tsr_latent_get_info(a->latent);
    tsr_extent extent = {z->frames, z->height, z->width};
    tsr_plan_params p = decode_params(a, &a->set);
    p.first_frame = (int)first;
    return tsr_plan_create(out, a->engine, a->model, &extent, &p);
}

void decode_plan(app *a) {
    double begin = app_time();
    tsr_plan_destroy(&a->plan);
    a->plan_error[0] = 0;
    if (!a->latent)
        return;
    if (make_plan(a, 0, &a->plan) != TSR_OK) {
        snprintf(a->plan_error, sizeof a->plan_error, "%s", tsr_last_error());
    } else {
        a->planned = *tsr_plan_get_info(a->plan);
        snprintf(a->planned_device, sizeof a->planned_device, "%s", a->planned.device);
        snprintf(a->planned_why, sizeof a->planned_why, "%s", a->planned.why);
        a->planned.device = a->planned_device;
        a->planned.why = a->planned_why;
        a->planned.runner_up = NULL;
    }
    a->plan_seconds = app_time() - begin;
    app_touch(a);
}

const tsr_plan_info *decode_in_force(const app *a) {
    const tsr_preview_info *i = tsr_preview_get_info(a->preview);
    bool shrunk = i->plan && i->shrunk && *i->shrunk && !a->plan && !a->plan_error[0];
    return shrunk ? i->plan : &a->planned;
}

void decode_changed(app *a, bool resting) {
    if (!a->latent)
        return;
    decode_plan(a);
    planner_ask(a->planner, a->engine, a->model, a);
    a->rested_at = app_time();
    a->start_at = a->rested_at + (resting ? 0 : REST);
}

/* ---------------------------------------------------------------- decodes */

void decode_begin(app *a) {
    decode_scales(a);
    decode_plan(a);
    bool measures = a->o->plan.quality > 0 && !a->measured;
    if (measures &&
        (jobs_running(a) == JOB_MEASURE || (jobs_running(a) == JOB_NONE && jobs_start(a, JOB_MEASURE, NULL)))) {
        app_say(a, false, "Measuring what each resnet loses in 8 bits, once for this model");
        return;
    }
    planner_ask(a->planner, a->engine, a->model, a);
    a->start_at = a->rested_at = app_time();
}

void decode_measured(app *a, bool found) {
    a->measured = found;
    decode_changed(a, true);
}

static void start(app *a, tsr_plan **plan, bool go_on) {
    if (tsr_preview_start(a->preview, plan, go_on) != TSR_OK)
        app_say(a, true, "%s", tsr_last_error());
    a->image_stale = true;
    app_touch(a);
}

static void start_planned(app *a) {
    a->start_at = 0;
    a->first_frame_seconds = 0;
    if (!a->plan) {
        tsr_preview_stop(a->preview); /* nothing fits: the plan says why */
        return;
    }
    start(a, &a->plan, false);
}

/* The first frame that is not whole, from `from` on; -1: none. */
static int64_t first_hole(const app *a, int64_t from, int64_t frames) {
    for (int64_t f = from; f < frames; f++)
        if (tsr_preview_frame_state(a->preview, f) != TSR_FRAME_WHOLE)
            return f;
    return -1;
}

static void start_at_frame(app *a, int64_t f) {
    tsr_plan *plan = NULL;
    if (make_plan(a, f, &plan) == TSR_OK)
        start(a, &plan, true);
}

/* The decode has come to its end: what it left out is next. Frames that had no room are not asked
 * for again. */
static void fill_holes(app *a, const tsr_preview_info *i) {
    bool has_room = i->frame_bytes + i->frame_bytes / (i->whole ? i->whole : 1) * 8 < (int64_t)2 << 30;
    if (i->state != TSR_PREVIEW_DONE || i->blending || i->whole == i->frames || a->start_at > 0)
        return;
    int64_t f = first_hole(a, a->frame, i->frames);
    if (f < 0 && has_room)
        f = first_hole(a, 0, i->frames);
    if (f >= 0)
        start_at_frame(a, f);
}

void decode_resume(app *a) {
    if (!a->latent || tsr_preview_get_info(a->preview)->state != TSR_PREVIEW_IDLE)
        return;
    int64_t f = first_hole(a, 0, tsr_preview_get_info(a->preview)->frames);
    if (f >= 0)
        start_at_frame(a, f);
}

void decode_seek(app *a) {
    a->seek_at = a->now + SEEK_REST;
    a->image_stale = true;
    app_touch(a);
}

/* A frame that the decode has passed, or will not reach soon. */
static void seek(app *a, const tsr_preview_info *i) {
    a->seek_at = 0;
    if (!i->plan || tsr_preview_frame_state(a->preview, a->frame) == TSR_FRAME_WHOLE)
        return;
    int64_t hand = (int64_t)i->latent * tsr_model_get_info(a->model)->time_factor;
    bool runs = i->state == TSR_PREVIEW_DECODING || i->state == TSR_PREVIEW_PAUSED || i->state == TSR_PREVIEW_PREPARING;
    bool comes = runs && (i->latent < 0 || (a->frame + 8 >= hand && a->frame - hand <= REACH));
    bool first_tiles = runs && tsr_preview_frame_state(a->preview, a->frame) == TSR_FRAME_PARTIAL;
    if (!comes && !first_tiles && i->state != TSR_PREVIEW_FAILED)
        start_at_frame(a, a->frame);
}

void decode_update(app *a) {
    const tsr_preview_info *i = tsr_preview_get_info(a->preview);
    if (!a->latent)
        return;
    if (a->start_at > 0 && a->now >= a->start_at) {
        start_planned(a);
        return;
    }
    if (a->rested_at > 0 && i->first_seconds > 0 && a->start_at == 0) {
        a->first_frame_seconds = app_time() - a->rested_at;
        a->rested_at = 0;
        app_touch(a);
    }
    if (a->seek_at > 0 && a->now >= a->seek_at && a->start_at == 0)
        seek(a, i);
    fill_holes(a, i);
}

/* ---------------------------------------------------------------- as a command */

static size_t quote(char *out, size_t size, const char *text) {
    size_t n = 0;
    bool plain =
        *text && text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-:,%@=")] == 0;
    if (plain)
        return (size_t)snprintf(out, size, "%s", text);
    n += (size_t)snprintf(out, size, "'");
    for (; *text && n < size; text++)
        n += (size_t)snprintf(out + n, size - n, *text == '\'' ? "'\\''" : "%c", *text);
    return n + (n < size ? (size_t)snprintf(out + n, size - n, "'") : 0);
}

void decode_command(const app *a, char *out, size_t size) {
    const settings *s = &a->set;
    char base[300];
    size_t n = (size_t)snprintf(out, size, "tessera render ");
    snprintf(base, sizeof base, "%s", a->name);
    char *dot = strrchr(base, '.');
    if (dot && dot != base)
        *dot = 0;
    strcat(base, ".mp4");
#define MORE(...) (n = n < size ? n + (size_t)snprintf(out + n, size - n, __VA_ARGS__) : n)
#define QUOTE(text) (n = n < size ? n + quote(out + n, size - n, text) : n)
    QUOTE(a->latent_path);
    MORE(" -m ");
    QUOTE(a->model_path);
    MORE(" -o ");
    QUOTE(base);
    tsr_plan_params p = decode_params(a, s);
    if (p.tile_width || p.tile_height)
        MORE(" --tile %dx%d", p.tile_width, p.tile_height);
    if (p.overlap_width >= 0)
        MORE(" --overlap %dx%d", p.overlap_width, p.overlap_height);
    if (p.budget > 0 && p.budget % (1 << 20) == 0)
        MORE(" --vram %lldM", (long long)(p.budget >> 20));
    else if (p.budget > 0)
        MORE(" --vram %lld", (long long)p.budget);
    if (p.quality > 0)
        MORE(" --quality %g", p.quality);
    if (p.precision != TSR_PRECISION_AUTO)
        MORE(" --precision %s", tsr_precision_name(p.precision));
    if (p.caches != TSR_CACHES_AUTO)
        MORE(" --caches %s", p.caches == TSR_CACHES_DEVICE ? "device" : "host");
    if (a->fps != 24)
        MORE(" --fps %g", a->fps);
#undef MORE
#undef QUOTE
}
