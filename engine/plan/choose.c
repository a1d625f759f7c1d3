#include "plan/choose.h"
#include "plan/pace.h"

#include <math.h>
#include <stdio.h>

enum {
    OVERLAP_PIXELS = 64, /* where the user leaves it open: as wide as a quarter of a tile at most */
    MOST_CUTS = 96,
    RESERVES = 4,
    MOST_BANDS = 48,
    MOST_UNTILED = TSR_MOST_CANDIDATES - 5,
    MOST_TILED = 5,
};
/* Near an edge that the picture does not have, a tile lacks what is beyond; this many latents at each are counted as
 * decoded in vain. It keeps tiles large and square, where overlaps alone would like slivers. */
#define SPOILT 2.0
/* Whole frames in bands of rows, which nothing is wrong with, may take this much of the time that tiles would. */
#define SEAMLESS 1.2
#define PARKING_SHARE 0.01 /* segments are long enough that parking takes less than this share of the time */

/* ---------------------------------------------------------------- cutting an axis */

static int overlap_of(const tsr_task *t, int asked_pixels, int tile) {
    int factor = t->half->space_factor;
    int most = asked_pixels < 0 && tile > 1 ? (tile + 2) / 4 : tile / 2,
        want = (asked_pixels < 0 ? OVERLAP_PIXELS : asked_pixels) / factor;
    return want < most ? want : most;
}

static tsr_cut cut_of(const tsr_task *t, int asked_overlap, int total, int tile) {
    tsr_cut c = {.tile = tile, .overlap = overlap_of(t, asked_overlap, tile)};
    c.length = tsr_span_length(total, tile, c.overlap);
    c.count = tsr_spans(total, tile, c.overlap, NULL, 0);
    return c;
}

/* The smallest tiles that need no more than n. */
static tsr_cut cut_into(const tsr_task *t, int asked_overlap, int total, int n) {
    int low = 1, high = total;
    while (low < high) {
        int mid = low + (high - low) / 2;
        if (cut_of(t, asked_overlap, total, mid).count <= n)
            high = mid;
        else
            low = mid + 1;
    }
    return cut_of(t, asked_overlap, total, low);
}

/* The cuts worth looking at, coarsest first: every small number of tiles, then 1 in 5 more each time. */
static int list_cuts(const tsr_task *t, int asked_tile, int asked_overlap, int total, tsr_cut *out) {
    int factor = t->half->space_factor, n = 0;
    if (asked_tile) {
        out[0] = cut_of(t, asked_overlap, total, asked_tile / factor > 1 ? asked_tile / factor : 1);
        return 1;
    }
    for (int64_t want = 1; n < MOST_CUTS; want += want < 12 ? 1 : want / 5) {
        tsr_cut c = cut_into(t, asked_overlap, total, want < total ? (int)want : total);
        if (!n || c.count > out[n - 1].count)
            out[n++] = c;
        if (c.length == 1 || want >= total)
            break;
    }
    return n;
}

/* ---------------------------------------------------------------- one candidate */

bool tsr_choose_fits(const tsr_task *t, const tsr_plan_bytes *b, int64_t slack) {
    int64_t beside = t->target->host_is_device ? tsr_sat_add(b->total, b->host) : b->host;
    return tsr_sat_add(b->total, slack) <= t->budget && beside <= t->host_budget;
}

static void add_up(const tsr_task *t, tsr_candidate *c) {
    tsr_plan_bytes *b = &c->bytes;
    b->total = tsr_sat_add(tsr_sat_add(b->weights, b->arena), tsr_sat_add(b->caches, tsr_sat_add(b->slots, b->frames)));
    c->fits = tsr_choose_fits(t, b, t->slack);
}

/* The most wanted output frames of a segment. */
static int frames_of_segment(const tsr_task *t, int segment) {
    int factor = t->outputs;
    int64_t first = 1 + (int64_t)factor * (segment - 1), rest = t->latents - segment;
    int64_t later = (int64_t)factor * (rest < segment ? rest : segment), most = first > later ? first : later;
    return most < t->wanted ? (int)most : t->wanted;
}

static void set_segment(
    const tsr_task *t, const tsr_tile_cost *cost, tsr_candidate *c, int segment, int64_t sets, int64_t parked) {
    double tiles = (double)c->rows * c->columns;
    int segments = (t->latents + segment - 1) / segment;
    c->segment = (t->latents + segments - 1) / segments; /* balanced */
    c->cache_sets = cost->cache ? (int)sets : 0;
    c->parked_sets = cost->cache && segments > 1 ? (int)parked : 0;
    c->frames = frames_of_segment(t, c->segment);
    c->bytes.caches = tsr_sat_mul(cost->cache, c->cache_sets);
    int64_t parks = tsr_sat_mul(cost->cache, c->parked_sets);
    c->bytes.host = tsr_sat_add(parks, tsr_task_host(t, c->tile_h, c->tile_w, c->segment));
    c->bytes.frames = tsr_sat_mul(t->frame_bytes, c->frames);
    c->transfer = tsr_link_seconds(t->target, 2.0 * (double)parks * (segments - 1));
    c->seconds = tiles * cost->seconds + c->transfer;
    add_up(t, c);
}

/* Latents that a segment may have where caches are parked: enough to hide the parking, if the frames fit. */
static int parked_segment(const tsr_task *t, const tsr_tile_cost *cost, const tsr_candidate *c) {
    int64_t others =
        tsr_sat_add(tsr_sat_add(c->bytes.weights, c->bytes.arena), tsr_sat_add(c->bytes.slots, cost->cache));
    int64_t left = t->budget - t->slack - others, a_latent = tsr_sat_mul(t->frame_bytes, t->outputs);
    int64_t most = left > 0 ? left / a_latent : 0, fixed = tsr_task_host(t, c->tile_h, c->tile_w, 0);
    int64_t input = tsr_task_host(t, c->tile_h, c->tile_w, 1) - fixed;
    int64_t host = t->host_budget - fixed - tsr_sat_mul(cost->cache, (int64_t)c->rows * c->columns);
    if (input && t->host_budget < INT64_MAX && host / input < most)
        most = host / input;
    double enough =
        ceil(t->latents * tsr_link_seconds(t->target, 2.0 * (double)cost->cache) / (PARKING_SHARE * cost->seconds));
    if (enough < (double)most)
        most = (int64_t)enough;
    return most < 1 ? 1 : most < t->latents ? (int)most : t->latents;
}

/* Seconds, and what edges are worth. */
static double price(const tsr_candidate *c) {
    double spoilt = (c->rows > 1 ? 2 * SPOILT / c->tile_h : 0) + (c->columns > 1 ? 2 * SPOILT / c->tile_w : 0);
    return c->seconds * (1 + spoilt);
}

static bool better(const tsr_candidate *a, const tsr_candidate *b) {
    if (a->fits != b->fits)
        return a->fits;
    if (!a->fits)
        return a->bytes.total < b->bytes.total;
    double ta = price(a), tb = price(b);
    if (fabs(ta - tb) > 1e-9 * tb)
        return ta < tb;
    return a->bytes.total + a->bytes.host < b->bytes.total + b->bytes.host;
}

/* Of two ways to run the same tiles. */
static bool preferred(const tsr_task *t, const tsr_candidate *a, const tsr_candidate *b) {
    if (t->params.live && a->fits && b->fits && a->segment != b->segment)
        return a->segment < b->segment;
    return better(a, b);
}

/* The best way to run these tiles: each through the whole video, all caches on the device, or parked. */
static tsr_status weigh(const tsr_task *t, tsr_cut y, tsr_cut x, int slice_level, tsr_candidate *out) {
    tsr_tile_cost cost;
    tsr_status status =
        tsr_tile_measure(t, (tsr_shape){.h = y.length, .w = x.length, .slice_level = slice_level}, &cost);
    if (status != TSR_OK)
        return status;
    int64_t tiles = (int64_t)y.count * x.count;
    tsr_candidate c = {
        .mode = tiles > 1 ? TSR_MODE_TILED : TSR_MODE_UNTILED,
        .tile_h = y.length,
        .tile_w = x.length,
        .rows = y.count,
        .columns = x.count,
        .slice_level = slice_level,
        .bytes = {.weights = t->weight_bytes, .arena = cost.arena, .slots = tsr_sat_mul(cost.slot, tsr_task_slots(t))},
    };
    if (tiles > INT32_MAX) { /* tiny tiles of an absurd picture: its frames fit nowhere */
        c.bytes.total = INT64_MAX;
        *out = c;
        return TSR_OK;
    }
    set_segment(t, &cost, &c, tiles > 1 ? t->latents : 1, 1, 0);
    *out = c;
    if (tiles == 1 || t->latents == 1)
        return TSR_OK;
    set_segment(t, &cost, &c, 1, tiles, 0);
    if (t->params.caches == TSR_CACHES_HOST || preferred(t, &c, out))
        *out = c;
    if (t->params.caches != TSR_CACHES_DEVICE) {
        set_segment(t, &cost, &c, parked_segment(t, &cost, &c), 1, tiles);
        if (t->params.caches == TSR_CACHES_HOST || preferred(t, &c, out))
            *out = c;
    }
    return TSR_OK;
}

/* The same tile, untiled, with caches on the host. Memory that caches leave lets transfers run ahead: several shares
 * are tried, because keeping more caches and waiting less are both worth something. */
static tsr_status weigh_offloaded(const tsr_task *t, const tsr_candidate *resident, tsr_candidate *out) {
    int64_t most = 0;
    for (int share = 0; share <= RESERVES; share++) {
        tsr_candidate c = *resident;
        tsr_plan_bytes *b = &c.bytes;
        tsr_tile_cost cost;
        c.mode = TSR_MODE_OFFLOADED;
        c.room = t->budget - t->slack - tsr_sat_add(b->weights, tsr_sat_add(b->slots, b->frames));
        c.reserve = most / RESERVES * share;
        tsr_status status = tsr_tile_measure(t,
            (tsr_shape){.h = c.tile_h,
                .w = c.tile_w,
                .slice_level = c.slice_level,
                .stream = true,
                .room = c.room,
                .reserve = c.reserve},
            &cost);
        if (status != TSR_OK)
            return status;
        b->arena = cost.arena;
        b->caches = cost.cache;
        b->host = tsr_sat_add(cost.host, tsr_task_host(t, c.tile_h, c.tile_w, c.segment));
        c.seconds = cost.seconds;
        c.transfer = 0;
        add_up(t, &c);
        if (!share || (cost.seconds < INFINITY && better(&c, out)))
            *out = c;
        most = c.room - b->arena;
        if (most <= 0)
            break;
    }
    return TSR_OK;
}

/* ---------------------------------------------------------------- the search */

/* Keeps the best of the list's last `room` places sorted; the worst falls out at the end. */
static void keep(tsr_choice *choice, int from, int room, const tsr_candidate *c) {
    tsr_candidate *list = choice->candidate + from;
    int n = choice->candidates - from, at = n;
    while (at > 0 && better(c, &list[at - 1]))
        at--;
    if (at == room)
        return;
    if (n < room)
        choice->candidates++, n++;
    for (int i = n - 1; i > at; i--)
        list[i] = list[i - 1];
    list[at] = *c;
}

/* Slice levels from coarse to fine. A step of one frame has nothing to slice. */
static int finest_slice(const tsr_task *t) {
    return t->latents > 1 ? 0 : t->half->levels;
}

/* From coarse slices to fine: with caches on the device until that fits, and one finer for comparison; before it fits,
 * and where it is asked for, with caches on the host. */
static tsr_status try_untiled(const tsr_task *t, tsr_cut y, tsr_cut x, tsr_choice *choice) {
    bool fitted = false, may_stream = t->target->streams && t->latents > 1 && t->params.caches != TSR_CACHES_DEVICE;
    for (int level = t->half->levels; level >= finest_slice(t); level--) {
        tsr_candidate c, streamed;
        tsr_status status = weigh(t, y, x, level, &c);
        if (status == TSR_OK && may_stream && (!c.fits || t->params.caches == TSR_CACHES_HOST)) {
            status = weigh_offloaded(t, &c, &streamed);
            if (status == TSR_OK)
                keep(choice, 0, MOST_UNTILED, &streamed);
        }
        if (status != TSR_OK)
            return status;
        if (may_stream && t->params.caches == TSR_CACHES_HOST)
            continue;
        keep(choice, 0, MOST_UNTILED, &c);
        if (fitted)
            break;
        fitted = c.fits;
    }
    return TSR_OK;
}

static tsr_status weigh_bands(const tsr_task *t, int band, int page_level, tsr_candidate *out) {
    tsr_shape s = {.h = t->extent.height,
        .w = t->extent.width,
        .slice_level = t->half->levels,
        .band = band,
        .page_level = page_level};
    tsr_tile_cost cost;
    tsr_status status = tsr_tile_measure(t, s, &cost);
    if (status != TSR_OK)
        return status;
    *out = (tsr_candidate){
        .mode = TSR_MODE_EXACT,
        .tile_h = s.h,
        .tile_w = s.w,
        .rows = 1,
        .columns = 1,
        .slice_level = s.slice_level,
        .band = band,
        .page_level = page_level,
        .bytes = {.weights = t->weight_bytes, .arena = cost.arena, .slots = tsr_sat_mul(cost.slot, tsr_task_slots(t))},
    };
    set_segment(t, &cost, out, 1, 1, 0);
    out->bytes.host = tsr_sat_add(out->bytes.host, cost.host);
    add_up(t, out);
    return TSR_OK;
}

/* Heights of bands worth looking at, in latents, tallest first; what the user asks for alone. */
static int list_bands(const tsr_task *t, int *out) {
    int factor = t->half->space_factor, total = t->extent.height, n = 0;
    if (t->params.tile_height) {
        int most = t->params.tile_height / factor, bands = (total + most - 1) / most;
        out[0] = (total + bands - 1) / bands;
        return 1;
    }
    for (int64_t bands = 1; n < MOST_BANDS; bands += bands < 4 ? 1 : bands / 3) {
        int band = bands < total ? (int)((total + bands - 1) / bands) : 1;
        if (!n || band < out[n - 1])
            out[n++] = band;
        if (band == 1)
            break;
    }
    return n;
}

/* In bands from each level up: the tallest that fit, for they load the fewest rows twice. Taller ones need more. */
static tsr_status try_bands(const tsr_task *t, tsr_choice *choice) {
    int height[MOST_BANDS], n = list_bands(t, height);
    for (int level = t->half->levels - 1; level > 0; level--) {
        tsr_candidate best = {0};
        int low = 0, high = n - 1; /* the answer, if there is one, is in [low, high] */
        do {
            int mid = low + (high - low) / 2;
            tsr_candidate c;
            tsr_status status = weigh_bands(t, height[mid], level, &c);
            if (status != TSR_OK)
                return status;
            if (!best.band || better(&c, &best))
                best = c;
            if (c.fits)
                high = mid - 1;
            else
                low = mid + 1;
        } while (low <= high);
        keep(choice, 0, MOST_UNTILED, &best);
    }
    return TSR_OK;
}

/* Bands stand in for tiles where they are asked for; where nobody says how tiles are to be, or where caches are, also
 * where the host's memory is the device's: elsewhere every row crosses the link. */
static bool may_band(const tsr_task *t) {
    const tsr_plan_params *p = &t->params;
    bool open = !p->untiled && !p->tile_width && !p->tile_height && p->overlap_width < 0 && p->overlap_height < 0 &&
                p->caches == TSR_CACHES_AUTO;
    return t->target->bands && !t->half->encodes && (p->exact || (open && t->target->host_is_device));
}

/* Whether a is to be chosen where b would be. */
static bool beats(const tsr_candidate *a, const tsr_candidate *b) {
    bool seams = a->mode == TSR_MODE_TILED && b->mode == TSR_MODE_EXACT && b->fits;
    return better(a, b) && !(seams && b->seconds <= SEAMLESS * price(a));
}

/* For every number of rows the fewest columns that fit: a staircase, because larger tiles need more. */
static tsr_status try_tiles(
    const tsr_task *t, const tsr_cut *y, int ys, const tsr_cut *x, int xs, int slice_level, tsr_choice *choice) {
    int column = xs - 1, untiled = 0;
    while (untiled < choice->candidates && choice->candidate[untiled].mode != TSR_MODE_TILED)
        untiled++;
    for (int row = 0; row < ys; row++) {
        tsr_candidate best = {0};
        bool found = false;
        for (int k = column; k >= 0; k--) {
            tsr_candidate c;
            if (y[row].count == 1 && x[k].count == 1)
                break;
            tsr_status status = weigh(t, y[row], x[k], slice_level, &c);
            if (status != TSR_OK)
                return status;
            if (found && !c.fits)
                break;
            best = c;
            found = true;
            column = k;
            if (!c.fits)
                break;
        }
        if (found)
            keep(choice, untiled, MOST_TILED, &best);
    }
    return TSR_OK;
}

static tsr_status no_bands(const tsr_task *t, const tsr_candidate *c) {
    char need[32], have[32];
    return tsr_fail(TSR_ERR_BUDGET,
        "plan: untiled needs %s (%lld bytes), the budget is %s, and exact tiles are not made on %s; "
        "raise the budget, or decode without exact",
        tsr_bytes_text(need, c->bytes.total), (long long)c->bytes.total, tsr_bytes_text(have, t->budget),
        t->half->encodes ? "the way to latents" : t->target->name);
}

tsr_status tsr_choose_refuse(const tsr_task *t, const tsr_candidate *c) {
    char what[64] = "decoding untiled", need[32], have[32];
    if (t->params.exact && !may_band(t))
        return no_bands(t, c);
    if (c->mode == TSR_MODE_TILED)
        snprintf(what, sizeof what, "decoding in tiles of %dx%d pixels", c->tile_w * t->half->space_factor,
            c->tile_h * t->half->space_factor);
    int64_t total = c->bytes.total;
    if (c->mode == TSR_MODE_EXACT)
        snprintf(what, sizeof what, "decoding in bands of %d rows", c->band * t->half->space_factor);
    if (total == INT64_MAX)
        return tsr_fail(TSR_ERR_BUDGET,
            "plan: %s: a latent of %dx%d takes more memory than can be counted; decode a smaller one", what,
            t->extent.width, t->extent.height);
    if (total <= t->budget)
        return tsr_fail(TSR_ERR_BUDGET,
            "plan: %s needs %s (%lld bytes) of host memory, %s are free; "
            "%s",
            what, tsr_bytes_text(need, c->bytes.host), (long long)c->bytes.host, tsr_bytes_text(have, t->host_budget),
            c->mode == TSR_MODE_EXACT ? "allow tiles that are not exact"
                                      : "decode fewer frames, or keep caches on the device");
    const tsr_plan_params *p = &t->params;
    return tsr_fail(TSR_ERR_BUDGET, "plan: %s needs %s (%lld bytes), the budget is %s; raise it%s", what,
        tsr_bytes_text(need, total), (long long)total, tsr_bytes_text(have, t->budget),
        p->untiled                        ? ", or allow tiles"
        : p->tile_width || p->tile_height ? ", or ask for smaller tiles"
                                          : "");
}

static tsr_cut find_cut(const tsr_cut *cut, int n, int count) {
    for (int i = 0; i < n; i++)
        if (cut[i].count == count)
            return cut[i];
    return cut[0]; /* not reached */
}

/* ---------------------------------------------------------------- by a recipe */

static tsr_cut cut_again(int total, int tile, int overlap) {
    return (tsr_cut){tile, overlap, tsr_span_length(total, tile, overlap), tsr_spans(total, tile, overlap, NULL, 0)};
}

static bool within(int64_t n, int64_t least, int64_t most) {
    return n >= least && n <= most;
}

/* Whether it could be a plan of this task. */
static bool is_sane(const tsr_task *t, const tsr_recipe *r) {
    int h = t->extent.height, levels = t->half->levels;
    bool bands = r->mode == TSR_MODE_EXACT;
    bool able = (!bands || t->target->bands) && (r->mode != TSR_MODE_OFFLOADED || t->target->streams);
    return able && within(r->mode, TSR_MODE_UNTILED, TSR_MODE_EXACT) && within(r->tile_h, 1, INT32_MAX) &&
           within(r->overlap_h, 0, r->tile_h / 2) && within(r->tile_w, 1, INT32_MAX) &&
           within(r->overlap_w, 0, r->tile_w / 2) && within(r->band, bands, bands ? h : 0) &&
           within(r->page_level, bands, bands ? levels - 1 : 0) && within(r->slice_level, 0, levels) && r->room >= 0 &&
           r->reserve >= 0 && within(r->segment, 1, t->latents) && within(r->cache_sets, 0, INT32_MAX) &&
           within(r->parked_sets, 0, INT32_MAX);
}

static tsr_status choose_again(const tsr_task *t, tsr_choice *out) {
    const tsr_recipe *r = t->recipe;
    tsr_candidate *c = out->candidate;
    tsr_tile_cost cost;
    if (!is_sane(t, r))
        return tsr_fail(TSR_ERR_FORMAT, "plan: a recipe that is none of this video and device");
    out->candidates = 1;
    out->y = cut_again(t->extent.height, r->tile_h, r->overlap_h);
    out->x = cut_again(t->extent.width, r->tile_w, r->overlap_w);
    int64_t tiles = (int64_t)out->y.count * out->x.count;
    bool tiled = r->mode == TSR_MODE_TILED;
    if ((tiles > 1) != tiled || r->cache_sets > tiles || (r->parked_sets && r->parked_sets != tiles))
        return tsr_fail(TSR_ERR_FORMAT, "plan: a recipe that contradicts itself");
    *c = (tsr_candidate){.mode = r->mode,
        .tile_h = out->y.length,
        .tile_w = out->x.length,
        .rows = out->y.count,
        .columns = out->x.count,
        .slice_level = r->slice_level,
        .band = r->band,
        .page_level = r->page_level,
        .room = r->room,
        .reserve = r->reserve};
    tsr_status status = tsr_tile_measure(t, tsr_candidate_shape(c), &cost);
    if (status != TSR_OK)
        return status;
    c->bytes.weights = t->weight_bytes;
    c->bytes.arena = cost.arena;
    c->bytes.slots = tsr_sat_mul(cost.slot, tsr_task_slots(t));
    set_segment(t, &cost, c, r->segment, r->cache_sets, r->parked_sets);
    c->cache_sets = r->cache_sets; /* of caches that all live on the host, too */
    c->bytes.host = tsr_sat_add(c->bytes.host, r->mode == TSR_MODE_OFFLOADED || r->band ? cost.host : 0);
    add_up(t, c);
    return TSR_OK;
}

/* ---------------------------------------------------------------- the choice */

tsr_status tsr_choose(const tsr_task *t, tsr_choice *out) {
    if (t->recipe)
        return choose_again(t, out);
    tsr_cut y[MOST_CUTS], x[MOST_CUTS];
    bool exact = t->params.exact, bands = may_band(t);
    int ys = list_cuts(t, exact ? 0 : t->params.tile_height, t->params.overlap_height, t->extent.height, y);
    int xs = list_cuts(t, exact ? 0 : t->params.tile_width, t->params.overlap_width, t->extent.width, x);
    bool whole = y[0].count == 1 && x[0].count == 1;
    tsr_status status = TSR_OK;
    out->candidates = 0;
    bool asked = exact && bands && t->params.tile_height; /* for bands of some height */
    if (whole && !asked)
        TSR_TRY(try_untiled(t, y[0], x[0], out));
    bool fitted = out->candidates && out->candidate[0].fits;
    if (whole && bands && !fitted)
        TSR_TRY(try_bands(t, out));
    if (!t->params.untiled && !exact && !fitted) {
        int finest = finest_slice(t) < t->half->levels ? t->half->levels - 2 : t->half->levels;
        for (int level = t->half->levels; level >= (finest < 0 ? 0 : finest); level--)
            TSR_TRY(try_tiles(t, y, ys, x, xs, level, out));
    }
    for (int i = 1; i < out->candidates; i++) /* the best of the tiled before the untiled that do not fit */
        if (beats(&out->candidate[i], &out->candidate[0])) {
            tsr_candidate best = out->candidate[i];
            out->candidate[i] = out->candidate[0];
            out->candidate[0] = best;
        }
    out->y = find_cut(y, ys, out->candidate[0].rows);
    out->x = find_cut(x, xs, out->candidate[0].columns);
error:
    return status;
}
