#include "plan/choose.h"
#include "plan/describe.h"

#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- what is asked */

int tsr_lookback(const tsr_half *d) {
    /* The oldest frame that a late latent's first output frame sees, layer by layer back to the latent. */
    const int64_t latent = 1 << 20;
    int64_t frame = d->time_factor * (latent - 1) + 1;
    for (int b = d->blocks - 1; b >= 0; b--) {
        const tsr_block *block = &d->block[b];
        for (int i = 4; i >= 0; i--) {
            if (block->layer[i] < 0)
                continue;
            const tsr_layer *l = &d->layer[block->layer[i]];
            if (block->kind == TSR_BLOCK_UPSAMPLE && l->zt == 2)
                frame = (frame - (l->kt - 2)) / 2; /* output s is virtual frame s + 1 of the doubled input */
            else if (l->kind == TSR_LAYER_CONV || l->kind == TSR_LAYER_UPSAMPLE)
                frame -= l->kt - 1;
        }
    }
    return (int)(latent - frame);
}

/* The first latent that output frames from `frame` on depend on. */
static int latent_behind(const tsr_half *d, int frame) {
    int latent = (frame + d->time_factor - 1) / d->time_factor, back = tsr_lookback(d);
    return latent > back ? latent - back : 0;
}

int tsr_plan_begin(const tsr_plan *p, int64_t frame) {
    int latent = latent_behind(p->half, (int)frame);
    if (latent <= p->first_latent || p->info.precision == TSR_PRECISION_INT8)
        return p->first_latent;
    return latent - (latent - p->first_latent) % p->segment;
}

static tsr_status check_extent(const tsr_half *half, const tsr_extent *e) {
    int64_t most = INT32_MAX / (half->space_factor > half->time_factor ? half->space_factor : half->time_factor);
    if (e->frames < 1 || e->height < 1 || e->width < 1 || e->frames > most || e->height > most || e->width > most)
        return tsr_fail(TSR_ERR_ARGUMENT, "plan: a latent of %dx%dx%d (width, height, frames): each must be 1 to %lld",
            e->width, e->height, e->frames, (long long)most);
    return TSR_OK;
}

static tsr_status check_tiles(const tsr_half *half, tsr_plan_params *p) {
    if (p->tile_width < 0 || p->tile_height < 0 || p->overlap_width < -1 || p->overlap_height < -1 || p->budget < 0)
        return tsr_fail(TSR_ERR_ARGUMENT, "plan: tile sizes, overlaps and budgets are not negative");
    if (p->untiled && (p->tile_width || p->tile_height))
        return tsr_fail(TSR_ERR_ARGUMENT, "plan: tiles are forbidden, and a tile size is given; choose one");
    int f = half->space_factor, *tile[2] = {&p->tile_width, &p->tile_height};
    int *overlap[2] = {&p->overlap_width, &p->overlap_height};
    for (int i = 0; i < 2; i++) {
        int t = *tile[i], down = t < f ? f : t / f * f, o = *overlap[i];
        if (t && t != down) {
            tsr_log(TSR_LOG_WARN, "plan: tile size %d becomes %d, a multiple of %d", t, down, f);
            *tile[i] = t = down;
        }
        if (o > 0 && o % f)
            tsr_log(TSR_LOG_WARN, "plan: overlap %d becomes %d, a multiple of %d", o, o / f * f, f);
        if (o > 0)
            o = o / f * f;
        if (t && o > t / (2 * f) * f) {
            tsr_log(TSR_LOG_WARN, "plan: overlap %d becomes %d, at most half of the tile's %d", o, t / (2 * f) * f, t);
            o = t / (2 * f) * f;
        }
        *overlap[i] = o;
    }
    return TSR_OK;
}

static tsr_status set_frames(tsr_task *t) {
    int factor = t->half->time_factor, frames = tsr_frames_of_latents(factor, t->extent.frames);
    tsr_plan_params *p = &t->params;
    t->outputs = factor;
    if (t->half->encodes) { /* all of it: what a latent is made of, its first frame included, is never known to be
                               unused */
        t->end_latent = t->latents = t->wanted = t->extent.frames;
        t->outputs = 1;
        return TSR_OK;
    }
    if (!p->end_frame || p->end_frame > frames) {
        if (p->end_frame)
            tsr_log(TSR_LOG_WARN, "plan: frames up to %d are asked for, the video has %d", p->end_frame, frames);
        p->end_frame = frames;
    }
    if (p->first_frame < 0 || p->first_frame >= p->end_frame)
        return tsr_fail(TSR_ERR_ARGUMENT, "plan: frames %d to %d of a video of %d: nothing to decode", p->first_frame,
            p->end_frame, frames);
    t->first_latent = latent_behind(t->half, p->first_frame);
    t->end_latent = (p->end_frame - 1 + factor - 1) / factor + 1;
    t->latents = t->end_latent - t->first_latent;
    t->wanted = p->end_frame - p->first_frame;
    return TSR_OK;
}

static void set_budget(tsr_task *t) {
    const tsr_target *target = t->target;
    const tsr_plan_params *p = &t->params;
    t->budget = p->budget > 0 ? p->budget
                : p->budget_share > 0 && target->memory_total > 0
                    ? (int64_t)(p->budget_share * (double)target->memory_total)
                : t->recipe               ? t->recipe->budget
                : target->memory_free > 0 ? target->memory_free - target->memory_free / 10
                                          : INT64_MAX;
    t->host_budget = target->host_free > 0 ? target->host_free : INT64_MAX;
}

/* Convolutions of the blocks that the mix leaves wide read no 8 bits. */
static tsr_status set_mix(tsr_task *t) {
    tsr_numerics *n = &t->numerics;
    const tsr_half *half = t->half;
    uint64_t wide = t->target->mix.wide;
    if (!wide || !n->eight)
        return TSR_OK;
    t->eight = malloc((size_t)half->layers);
    if (!t->eight)
        return tsr_fail(TSR_ERR_MEMORY, "plan: out of memory");
    memcpy(t->eight, n->eight, (size_t)half->layers);
    for (int b = 0; b < half->blocks && b < TSR_MIX_BLOCKS; b++)
        for (int j = 0; j < 5 && (wide >> b & 1); j++)
            if (half->block[b].layer[j] >= 0)
                t->eight[half->block[b].layer[j]] = 0;
    n->eight = t->eight;
    return TSR_OK;
}

static tsr_status set_task(tsr_task *t, const tsr_half *half, const tsr_target *target, const tsr_extent *extent,
    const tsr_plan_params *params, const tsr_recipe *recipe) {
    *t = (tsr_task){.half = half, .target = target, .params = *params, .extent = *extent, .recipe = recipe};
    tsr_status status;
    if (!half->present)
        return tsr_fail(TSR_ERR_UNSUPPORTED, "plan: the model has no such half");
    if ((status = check_extent(half, extent)) != TSR_OK || (status = check_tiles(half, &t->params)) != TSR_OK ||
        (status = set_frames(t)) != TSR_OK)
        return status;
    target->numerics(target->ctx, params->precision, half, &t->numerics);
    if (params->precision == TSR_PRECISION_F32 && t->numerics.precision != TSR_PRECISION_F32)
        return tsr_fail(
            TSR_ERR_UNSUPPORTED, "plan: there is no f32 on %s; use --precision fp16, or --device cpu", target->name);
    if ((status = set_mix(t)) != TSR_OK)
        return status;
    if (half->encodes)
        t->numerics.slot = TSR_F32; /* latents are small, and kept */
    if ((status = tsr_task_weights(t, &t->weight_bytes)) != TSR_OK)
        return status;
    set_budget(t);
    int factor = half->encodes ? 1 : half->space_factor;
    int64_t pixels = tsr_sat_mul((int64_t)extent->width * factor, (int64_t)extent->height * factor);
    t->frame_dtype = t->numerics.slot;
    t->frame_bytes = tsr_sat_mul(pixels, half->out_channels * (int64_t)tsr_dtype_size(t->frame_dtype));
    return TSR_OK;
}

/* ---------------------------------------------------------------- the plan of a choice */

static tsr_status lay_axis(const tsr_cut *c, int total, const tsr_half *half, tsr_axis *a) {
    a->tiles = c->count;
    int factor = half->space_factor;
    size_t n = (size_t)c->count, faded = (size_t)c->length * (size_t)(half->encodes ? 1 : factor);
    a->latent = malloc(n * sizeof *a->latent);
    a->pixel = malloc(n * sizeof *a->pixel);
    a->weight = malloc(n * faded * sizeof *a->weight); /* as many as the frame's side has pixels, twice that at most */
    if (!a->latent || !a->pixel || !a->weight)
        return tsr_fail(TSR_ERR_MEMORY, "plan: out of memory");
    tsr_spans(total, c->tile, c->overlap, a->latent, c->count);
    for (size_t i = 0; i < n; i++)
        a->pixel[i] = (tsr_span){a->latent[i].begin * factor, a->latent[i].end * factor};
    for (size_t i = 0; i < n; i++)
        tsr_fade(half->encodes ? a->latent : a->pixel, c->count, (int)i, a->weight + i * faded);
    return TSR_OK;
}

static int overlap_pixels(const tsr_axis *a) { /* the smallest */
    int least = INT32_MAX;
    for (int i = 0; i + 1 < a->tiles; i++)
        if (a->pixel[i].end - a->pixel[i + 1].begin < least)
            least = a->pixel[i].end - a->pixel[i + 1].begin;
    return a->tiles > 1 ? least : 0;
}

/* Exact bytes of the chosen candidate, now that everything has its place. */
static void settle(const tsr_task *t, tsr_plan *p, tsr_candidate *c) {
    tsr_plan_bytes *b = &c->bytes;
    b->weights = (int64_t)p->weight_bytes;
    b->arena = (int64_t)p->arena_bytes;
    b->caches = (int64_t)p->cache_bytes * c->cache_sets;
    b->host = (int64_t)p->cache_bytes * c->parked_sets + (int64_t)p->host_bytes +
              tsr_task_host(t, c->tile_h, c->tile_w, c->segment);
    b->total = b->weights + b->arena + b->caches + b->slots + b->frames;
}

static void write_recipe(const tsr_task *t, const tsr_choice *choice, tsr_plan *p) {
    const tsr_candidate *c = &p->candidate[0];
    tsr_recipe r = {
        .precision = t->numerics.precision,
        .wide = t->target->mix.wide,
        .quality = t->target->mix.quality,
        .expected = t->target->mix.expected,
        .extent = t->extent,
        .first_frame = t->params.first_frame,
        .end_frame = t->params.end_frame,
        .caches = t->params.caches,
        .mode = c->mode,
        .tile_h = choice->y.tile,
        .overlap_h = choice->y.overlap,
        .tile_w = choice->x.tile,
        .overlap_w = choice->x.overlap,
        .slice_level = c->slice_level,
        .band = c->band,
        .page_level = c->page_level,
        .room = c->room,
        .reserve = c->reserve,
        .segment = c->segment,
        .cache_sets = c->cache_sets,
        .parked_sets = c->parked_sets,
        .budget = t->budget,
        .arena = (int64_t)p->arena_bytes,
    };
    tsr_recipe_print(p->recipe, &r);
}

/* Refused with TSR_ERR_BUDGET, *least is what needs least of all that was looked at. */
static tsr_status build(const tsr_task *t, tsr_plan **out, tsr_candidate *least) {
    tsr_choice choice;
    tsr_status status = tsr_choose(t, &choice);
    if (status != TSR_OK)
        return status;
    tsr_plan *p = calloc(1, sizeof *p);
    if (!p)
        return tsr_fail(TSR_ERR_MEMORY, "plan: out of memory");
    tsr_candidate *c = &choice.candidate[0];
    if (!c->fits && (c->mode == TSR_MODE_OFFLOADED || c->bytes.total == INT64_MAX))
        TSR_TRY(tsr_choose_refuse(t, c));
    TSR_TRY(tsr_tile_lay_out(t, tsr_candidate_shape(c), p));
    if (t->recipe && (int64_t)p->arena_bytes != t->recipe->arena)
        TSR_TRY(tsr_fail(TSR_ERR_FORMAT, "plan: by this recipe the arena has %lld bytes here, it had %lld",
            (long long)p->arena_bytes, (long long)t->recipe->arena));
    settle(t, p, c);
    if (!c->fits && !(c->fits = tsr_choose_fits(t, &c->bytes, 0))) /* packed, the least is what it is */
        TSR_TRY(tsr_choose_refuse(t, c));
    TSR_TRY(lay_axis(&choice.y, t->extent.height, t->half, &p->y));
    TSR_TRY(lay_axis(&choice.x, t->extent.width, t->half, &p->x));
    p->half = t->half;
    p->target = *t->target;
    p->params = t->params;
    p->numerics = t->numerics;
    p->numerics.eight = NULL; /* the backend's, for the time of planning */
    p->first_latent = t->first_latent;
    p->end_latent = t->end_latent;
    p->segment = c->segment;
    p->cache_sets = c->cache_sets;
    p->parked_sets = c->parked_sets;
    p->slots = tsr_task_slots(t);
    p->slot_dtype = t->numerics.slot;
    p->frames_in_flight = c->frames;
    p->frame_bytes = (size_t)t->frame_bytes;
    p->frame_dtype = t->frame_dtype;
    p->candidates = choice.candidates;
    memcpy(p->candidate, choice.candidate, sizeof p->candidate);
    write_recipe(t, &choice, p);
    *out = p;
    return TSR_OK;
error:
    *least = *c;
    tsr_plan_free(&p);
    return status;
}

static void fill_info(const tsr_task *t, tsr_plan *p) {
    const tsr_candidate *c = &p->candidate[0];
    int factor = t->half->space_factor;
    double tiles = (double)c->rows * c->columns;
    bool rates =
        t->target->bandwidth > 0 && (t->target->flops_f32 > 0 || t->target->flops_16 > 0 || t->target->flops_8 > 0);
    p->info = (tsr_plan_info){
        .mode = c->mode,
        .precision = t->numerics.precision,
        .extent = t->extent,
        .frames = t->wanted,
        .width = t->extent.width * factor,
        .height = t->extent.height * factor,
        .tile_width = c->tile_w * factor,
        .tile_height = c->tile_h * factor,
        .overlap_width = overlap_pixels(&p->x),
        .overlap_height = overlap_pixels(&p->y),
        .columns = c->columns,
        .rows = c->rows,
        .segment = c->segment,
        .bands = c->band ? p->program[TSR_STEP_FIRST]->bands : 0,
        .band_height = c->band * factor,
        .bytes = c->bytes,
        .budget = t->budget,
        .flops = p->info.flops * tiles,
        .seconds = rates ? p->info.seconds * tiles + c->transfer : 0,
        .arena_bound = (int64_t)p->arena_bound,
        .device = p->target.name,
        .why = p->why,
        .runner_up = p->runner_up,
        .numbers = p->numbers,
        .quality = p->target.mix.quality,
        .unmeasured = p->target.mix.unmeasured,
        .recipe = p->recipe,
    };
    tsr_plan_explain(p);
    p->params.recipe = NULL; /* the caller's */
    tsr_plan_name_numbers(p);
}

/* The plan of a task that is set. */
static tsr_status make(tsr_task *task, tsr_plan **out, tsr_candidate *least) {
    /* Candidates are weighed by the lower bound of their arena. Where the packing misses it and that is too much, the
     * choice is made again with so much to spare. */
    for (;;) {
        tsr_status status = build(task, out, least);
        if (status != TSR_OK)
            return status;
        int64_t over = (*out)->candidate[0].bytes.total - task->budget;
        if (over <= 0)
            break;
        tsr_plan_free(out);
        task->slack += over > task->slack ? over : task->slack;
    }
    fill_info(task, *out);
    return TSR_OK;
}

/* What is looked at depends on the budget: with a byte less than was said to be needed there may be another way. */
static tsr_status refuse(const tsr_task *task, tsr_candidate least) {
    for (bool lower = !task->recipe; lower && least.bytes.total > task->budget && least.bytes.total < INT64_MAX;) {
        tsr_task other = *task;
        tsr_plan *p = NULL;
        tsr_candidate none;
        other.budget = least.bytes.total - 1;
        other.slack = 0;
        lower = make(&other, &p, &none) == TSR_OK;
        if (lower)
            least = p->candidate[0];
        tsr_plan_free(&p);
    }
    return tsr_choose_refuse(task, &least);
}

/* Where a plan is to be made again: what it was made for. */
static tsr_status follow_recipe(
    const char *text, const tsr_extent *extent, tsr_recipe *r, tsr_target *target, tsr_plan_params *p) {
    const tsr_extent *e = &r->extent;
    tsr_status status = tsr_recipe_parse(text, r);
    if (status != TSR_OK)
        return status;
    if (e->frames != extent->frames || e->height != extent->height || e->width != extent->width)
        return tsr_fail(TSR_ERR_FORMAT, "plan: the recipe is for %d latents of %dx%d, these are %d of %dx%d", e->frames,
            e->width, e->height, extent->frames, extent->width, extent->height);
    if (r->precision <= TSR_PRECISION_AUTO || r->precision > TSR_PRECISION_INT8 || r->caches > TSR_CACHES_HOST)
        return tsr_fail(TSR_ERR_FORMAT, "plan: a recipe of a precision or a place that there is not");
    target->mix = (tsr_mix){.wide = r->wide, .quality = r->quality, .expected = r->expected};
    p->precision = r->precision;
    p->caches = r->caches;
    p->first_frame = r->first_frame;
    p->end_frame = r->end_frame;
    return TSR_OK;
}

tsr_status tsr_plan_make(tsr_plan **out, const tsr_half *half, const tsr_target *target, const tsr_extent *extent,
    const tsr_plan_params *params) {
    tsr_task task = {0};
    tsr_recipe recipe;
    tsr_candidate least;
    tsr_target own = *target;
    tsr_plan_params p = *params;
    tsr_status status = TSR_OK;
    *out = NULL;
    if (p.recipe)
        status = follow_recipe(p.recipe, extent, &recipe, &own, &p);
    if (status == TSR_OK)
        status = set_task(&task, half, &own, extent, &p, p.recipe ? &recipe : NULL);
    if (status == TSR_OK && (status = make(&task, out, &least)) == TSR_ERR_BUDGET)
        status = refuse(&task, least);
    free(task.eight);
    return status;
}

bool tsr_plan_same_weights(const tsr_plan *a, const tsr_plan *b) {
    if (a->half != b->half || a->weights != b->weights || a->weight_bytes != b->weight_bytes)
        return false;
    for (int i = 0; i < a->weights; i++) {
        const tsr_plan_weight *u = &a->weight[i], *v = &b->weight[i];
        if (memcmp(u->kernel, v->kernel, sizeof *u->kernel) != 0 || u->input != v->input || u->at != v->at ||
            u->bytes != v->bytes)
            return false;
    }
    return memcmp(a->norm_at, b->norm_at, (size_t)a->half->layers * sizeof *a->norm_at) == 0;
}

void tsr_plan_free(tsr_plan **plan) {
    tsr_plan *p = *plan;
    if (!p)
        return;
    for (tsr_step step = 0; step < TSR_STEP_COUNT; step++) {
        tsr_program_destroy(&p->program[step]);
        free(p->weight_of[step]);
        free(p->buffer_at[step]);
        free(p->scratch_at[step]);
        free(p->move_at[step]);
    }
    free(p->weight);
    free(p->norm_at);
    free(p->cache_at);
    free(p->host_at);
    tsr_axis *axes[] = {&p->y, &p->x};
    for (int i = 0; i < 2; i++) {
        free(axes[i]->latent);
        free(axes[i]->pixel);
        free(axes[i]->weight);
    }
    free(p);
    *plan = NULL;
}

const tsr_plan_info *tsr_plan_get_info(const tsr_plan *p) {
    return &p->info;
}
