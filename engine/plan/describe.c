#include "plan/describe.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- one line each */

static int pixels(const tsr_plan *p, int latents) {
    return latents * p->half->space_factor;
}

const char *tsr_candidate_text(char buf[128], const tsr_plan *p, const tsr_candidate *c) {
    char slices[48] = "", tiles[64] = "untiled";
    if (c->slice_level < p->half->levels)
        snprintf(slices, sizeof slices, c->slice_level ? ", level %d up frame by frame" : ", frame by frame",
            c->slice_level);
    if (c->mode == TSR_MODE_TILED)
        snprintf(tiles, sizeof tiles, "%dx%d tiles of %dx%d", c->columns, c->rows, pixels(p, c->tile_w),
            pixels(p, c->tile_h));
    if (c->mode == TSR_MODE_EXACT)
        snprintf(tiles, sizeof tiles, "%d bands of %dx%d, exact, from level %d", (c->tile_h + c->band - 1) / c->band,
            pixels(p, c->tile_w), pixels(p, c->band), c->page_level);
    snprintf(buf, 128, "%s%s%s", tiles, slices,
        c->parked_sets                  ? ", caches parked"
        : c->mode == TSR_MODE_OFFLOADED ? ", caches streamed"
                                        : "");
    return buf;
}

/* The cheapest way with whole frames on the device that was weighed, whether it fits or not; NULL where none was. */
static const tsr_candidate *least_untiled(const tsr_plan *p) {
    const tsr_candidate *least = NULL;
    for (int i = 0; i < p->candidates; i++)
        if (p->candidate[i].mode != TSR_MODE_TILED && p->candidate[i].mode != TSR_MODE_EXACT &&
            (!least || p->candidate[i].bytes.total < least->bytes.total))
            least = &p->candidate[i];
    return least;
}

static const tsr_candidate *second(const tsr_plan *p) {
    for (int i = 1; i < p->candidates; i++)
        if (p->candidate[i].fits)
            return &p->candidate[i];
    return NULL;
}

void tsr_plan_explain(tsr_plan *p) {
    const tsr_candidate *c = &p->candidate[0], *untiled = least_untiled(p), *next = second(p);
    char need[32], have[32], text[128];
    tsr_bytes_text(have, p->info.budget);
    if (p->params.recipe) {
        snprintf(p->why, sizeof p->why, "the plan that is gone on with");
        snprintf(p->runner_up, sizeof p->runner_up, "none was weighed");
        return;
    }
    if (c->mode == TSR_MODE_OFFLOADED)
        snprintf(p->why, sizeof p->why, "with caches streamed from host memory it fits into %s: no seams", have);
    else if (c->mode == TSR_MODE_EXACT && p->params.tile_height)
        snprintf(p->why, sizeof p->why, "exact tiles of the height asked for: no seams");
    else if (c->mode == TSR_MODE_EXACT && untiled)
        snprintf(p->why, sizeof p->why,
            "untiled needs %s, the budget is %s; frames in host memory, band by band: no seams",
            tsr_bytes_text(need, untiled->bytes.total), have);
    else if (c->mode == TSR_MODE_UNTILED)
        snprintf(p->why, sizeof p->why,
            p->info.budget == INT64_MAX ? "untiled, no budget to keep" : "untiled fits into %s: no seams", have);
    else if (p->params.tile_width || p->params.tile_height)
        snprintf(p->why, sizeof p->why, "the tile size asked for");
    else if (untiled && untiled->bytes.total <= p->info.budget)
        snprintf(p->why, sizeof p->why, "untiled needs %s of host memory, which are not free; these tiles cost least",
            tsr_bytes_text(need, untiled->bytes.host));
    else if (untiled)
        snprintf(p->why, sizeof p->why, "untiled needs %s, the budget is %s; these tiles cost least time and seams",
            tsr_bytes_text(need, untiled->bytes.total), have);
    if (next) {
        tsr_candidate_text(text, p, next);
        snprintf(p->runner_up, sizeof p->runner_up, "%s: %s, %+.1f%% time", text,
            tsr_bytes_text(need, next->bytes.total), 100 * (next->seconds / c->seconds - 1));
    } else {
        snprintf(p->runner_up, sizeof p->runner_up, "none that fits");
    }
}

/* "up_blocks.3.resnets.2" of "decoder.up_blocks.3.resnets.2.conv1". */
static void append_block(char *to, size_t room, const tsr_half *half, int block) {
    const char *name = half->layer[half->block[block].layer[1]].name, *dot = strchr(name, '.');
    size_t used = strlen(to);
    name = dot ? dot + 1 : name;
    const char *end = strrchr(name, '.');
    snprintf(to + used, room - used, "%s%.*s", used ? ", " : "", end ? (int)(end - name) : (int)strlen(name), name);
}

void tsr_plan_name_numbers(tsr_plan *p) {
    const tsr_mix *mix = &p->target.mix;
    const tsr_half *half = p->half;
    const char *name = tsr_precision_name(p->info.precision);
    char wide[320] = "", held[64] = "";
    int of = 0, kept = 0;
    for (int b = 0; b < half->blocks && b < TSR_MIX_BLOCKS; b++)
        if (half->block[b].kind == TSR_BLOCK_RESNET) {
            of++;
            if (mix->wide >> b & 1) {
                kept++;
                append_block(wide, sizeof wide, half, b);
            }
        }
    if (mix->quality > 0 && isinf(mix->expected))
        snprintf(held, sizeof held, ", for %.4g dB", mix->quality);
    else if (mix->quality > 0 && mix->expected > 0)
        snprintf(held, sizeof held, ", %.1f dB expected for %.4g", mix->expected, mix->quality);
    if (kept)
        snprintf(p->numbers, sizeof p->numbers, "%s in %d of %d resnets%s; %s in %s", name, of - kept, of, held,
            p->numerics.act == TSR_F32 ? "f32" : "16 bits", wide);
    else
        snprintf(p->numbers, sizeof p->numbers, "%s%s%s%s", name, held, mix->why[0] ? ": " : "", mix->why);
}

/* ---------------------------------------------------------------- the table */

static void line(FILE *f, const char *name, int64_t bytes, int64_t total, const char *note) {
    char text[32];
    fprintf(f, "  %-10s %10s  %5.1f%%  %s\n", name, tsr_bytes_text(text, bytes),
        total ? 100.0 * (double)bytes / (double)total : 0, note);
}

static void flops_text(char buf[32], double flops) {
    snprintf(buf, 32, flops >= 1e12 ? "%.2f TFLOP" : "%.1f GFLOP", flops >= 1e12 ? flops / 1e12 : flops / 1e9);
}

static void heading(FILE *f, const tsr_plan *p) {
    const tsr_plan_info *i = &p->info;
    char text[128];
    bool encode = p->half->encodes;
    int frames = encode ? tsr_frames_of_latents(p->half->time_factor, i->frames) : i->frames,
        latents = p->end_latent - p->first_latent;
    fprintf(f, "%dx%d, %d frame%s, %s %d latent%s of %dx%d; %s on %s\n", i->width, i->height, frames,
        tsr_plural(frames), encode ? "to" : "from", latents, tsr_plural(latents), i->extent.width, i->extent.height,
        tsr_precision_name(i->precision), i->device);
    fprintf(f, "\nchosen      %s\n", tsr_candidate_text(text, p, &p->candidate[0]));
    if (i->mode == TSR_MODE_TILED)
        fprintf(f, "            overlapping by at least %dx%d pixels, in segments of %d latents\n", i->overlap_width,
            i->overlap_height, i->segment);
    fprintf(f, "because     %s\nrunner-up   %s\nnumbers     %s\n", i->why, i->runner_up, i->numbers);
}

static int streamed_caches(const tsr_plan *p) {
    int n = 0;
    for (int i = 0; p->host_at && i < p->program[TSR_STEP_FIRST]->caches; i++)
        n += p->host_at[i] != SIZE_MAX;
    return n;
}

static void memory(FILE *f, const tsr_plan *p) {
    const tsr_plan_bytes *b = &p->info.bytes;
    char note[96], text[32];
    fprintf(f, "\nmemory on the device\n");
    snprintf(note, sizeof note, "%d kernels", p->weights);
    line(f, "weights", b->weights, b->total, note);
    snprintf(note, sizeof note, "no packing is below %s", tsr_bytes_text(text, p->info.arena_bound));
    line(f, "arena", b->arena, b->total, note);
    snprintf(note, sizeof note, "%d x %s", p->cache_sets, tsr_bytes_text(text, (int64_t)p->cache_bytes));
    line(f, "caches", b->caches, b->total, p->cache_sets ? note : "none: a single latent");
    snprintf(note, sizeof note, "%d x %s, %s", p->slots, tsr_bytes_text(text, (int64_t)p->slot_bytes),
        tsr_dtype_name(p->slot_dtype));
    line(f, "slots", b->slots, b->total, note);
    snprintf(note, sizeof note, "%d x %s, %s", p->frames_in_flight, tsr_bytes_text(text, (int64_t)p->frame_bytes),
        tsr_dtype_name(p->frame_dtype));
    line(f, "frames", b->frames, b->total, note);
    if (p->info.budget == INT64_MAX)
        snprintf(note, sizeof note, "no budget");
    else
        snprintf(note, sizeof note, "of %s", tsr_bytes_text(text, p->info.budget));
    line(f, "total", b->total, b->total, note);
    const char *input = p->half->encodes ? "frames of the clip" : "latents";
    if (p->parked_sets)
        snprintf(note, sizeof note, "parked caches of %d tiles, %s", p->parked_sets, input);
    else if (p->band)
        snprintf(
            note, sizeof note, "frames and caches of levels %d to %d, %s", p->page_level, p->half->levels - 1, input);
    else if (p->host_bytes)
        snprintf(
            note, sizeof note, "%d of %d caches, %s", streamed_caches(p), p->program[TSR_STEP_FIRST]->caches, input);
    else
        snprintf(note, sizeof note, "%s", input);
    fprintf(f, "  %-10s %10s          %s", "host", tsr_bytes_text(text, b->host), note);
    if (p->target.host_free > 0)
        fprintf(f, "; of %s", tsr_bytes_text(text, p->target.host_free));
    fprintf(f, "\n");
}

static void work(FILE *f, const tsr_plan *p) {
    char text[32];
    flops_text(text, p->info.flops);
    fprintf(f, "\nwork        %s", text);
    if (p->info.seconds > 0)
        fprintf(f, ", about %.3g s", p->info.seconds);
    fprintf(f, "\n");
}

static void weighed(FILE *f, const tsr_plan *p) {
    char text[128], bytes[32];
    fprintf(f, "\nweighed     %-64s %10s %9s\n", "", "memory", "time");
    for (int i = 0; i < p->candidates; i++) {
        const tsr_candidate *c = &p->candidate[i];
        fprintf(f, "  %-8s  %-64s %10s",
            i == 0    ? "chosen"
            : c->fits ? "fits"
                      : "too big",
            tsr_candidate_text(text, p, c),
            c->bytes.total == INT64_MAX ? "no end" : tsr_bytes_text(bytes, c->bytes.total));
        if (c->bytes.total < INT64_MAX && isfinite(c->seconds)) /* where nothing fits, nothing is timed */
            fprintf(f, " %8.1f%%", 100 * c->seconds / p->candidate[0].seconds);
        fprintf(f, "\n");
    }
}

/* What a budget of one byte less than this plan takes would lead to. */
static void with_less(FILE *f, const tsr_plan *p) {
    char text[128], bytes[32], below[32];
    tsr_plan_params params = p->params;
    params.budget = p->info.bytes.total - 1;
    tsr_plan *less;
    tsr_bytes_text(below, p->info.bytes.total);
    if (tsr_plan_make(&less, p->half, &p->target, &p->info.extent, &params) == TSR_OK) {
        const tsr_candidate *c = &less->candidate[0];
        fprintf(f, "\nbelow %s: %s, %s, %+.1f%% time\n", below, tsr_candidate_text(text, less, c),
            tsr_bytes_text(bytes, c->bytes.total), 100 * (c->seconds / p->candidate[0].seconds - 1));
        tsr_plan_free(&less);
    } else {
        fprintf(f, "\nbelow %s: not possible\n", below);
    }
}

char *tsr_plan_text(const tsr_plan *p) {
    char *text = NULL;
    size_t bytes;
    FILE *f = open_memstream(&text, &bytes);
    if (!f)
        return NULL;
    heading(f, p);
    memory(f, p);
    work(f, p);
    weighed(f, p);
    with_less(f, p);
    if (fclose(f)) {
        free(text);
        return NULL;
    }
    return text;
}
