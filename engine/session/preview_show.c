/* Seeing: what lies over what in a frame, drawn, compared, read back. */
#include "session/watch.h"

#include <math.h>
#include <stdlib.h>

/* ---------------------------------------------------------------- the stack of a frame */

static tsr_vk_layer layer_of(const tsr_kept *k) {
    return (tsr_vk_layer){k ? k->frames : NULL, 0};
}

/* p->come: how far each tile has faded in. False where one has not come, or not wholly. */
static bool fill_come(tsr_preview *p, const tsr_watch_frame *w, double now, bool *fading) {
    int tiles = p->plan->y.tiles * p->plan->x.tiles;
    bool all = true;
    for (int i = 0; i < tiles; i++) {
        double when = w->when ? w->when[i] : 1, age = now - when;
        p->come[i] = !(when > 0)                                    ? 0
                     : age >= p->params.fade || p->params.fade <= 0 ? 1
                                                                    : (float)fmax(age / p->params.fade, 0.01);
        all &= p->come[i] >= 1;
        if (fading)
            *fading |= p->come[i] > 0 && p->come[i] < 1;
    }
    return all;
}

tsr_vk_stack tsr_watch_stack(tsr_preview *p, int64_t frame, bool tables, double now, bool *fading) {
    const tsr_watch_frame *w = &p->frame[frame];
    int factor = tsr_model_get_info(p->m)->time_factor;
    tsr_vk_stack s = {
        .width = p->info.width,
        .height = p->info.height,
        .fresh = layer_of(w->come ? w->fresh : NULL),
        .old = layer_of(w->old),
        .reference = layer_of(w->reference),
        .rough = p->rough,
        .rough_frame = (int)((frame + factor - 1) / factor),
    };
    if (!p->plan || !(w->come || tables))
        return s;
    if (fill_come(p, w, now, fading) && !tables)
        return s;
    s.columns = p->plan->x.tiles;
    s.rows = p->plan->y.tiles;
    s.x = p->x;
    s.y = p->y;
    s.come = p->come;
    return s;
}

/* ---------------------------------------------------------------- drawing */

/* Cores that draw find what lies over what once for every pixel of the frame, not for all those that the canvas' pixels
 * lie between: there are some 18 times as many where a small video fills a window. *flat: what then is drawn, to be
 * given back; NULL where the frames leave it no room. */
static tsr_status flatten_first(tsr_preview *p, tsr_vk_stack *stack, tsr_kept **flat) {
    tsr_status status;
    TSR_TRY(tsr_watch_take(&p->pool, tsr_vk_frames_dtype(stack->fresh.frames), flat));
    if (!*flat)
        return TSR_OK;
    TSR_TRY(tsr_vk_flatten(p->e->vk, stack, (tsr_vk_layer){(*flat)->frames, 0}));
    stack->fresh = layer_of(*flat);
    stack->old = (tsr_vk_layer){0};
    stack->rough = NULL;
    stack->columns = stack->rows = 0;
error:
    return status;
}

tsr_status tsr_preview_show(tsr_preview *p, const tsr_preview_view *v, tsr_preview_image *out) {
    tsr_status status;
    tsr_kept *flat = NULL;
    if (v->frame < 0 || v->frame >= p->frames || !(v->zoom > 0) || !isfinite(v->zoom) || !isfinite(v->left) ||
        !isfinite(v->top))
        return tsr_fail(TSR_ERR_ARGUMENT, "preview: no such frame or zoom");
    tsr_vk_canvas **canvas = v->deep ? &p->deep_canvas : &p->canvas;
    if (!*canvas)
        TSR_TRY(tsr_vk_canvas_create(p->e->vk, v->deep, canvas));
    p->info.animating = false;
    tsr_vk_stack stack = tsr_watch_stack(p, v->frame, v->weights, tsr_now(), &p->info.animating);
    if (stack.columns && stack.fresh.frames && !v->weights && tsr_vk_is_software(p->e->vk))
        TSR_TRY(flatten_first(p, &stack, &flat));
    tsr_vk_show show = {
        .width = v->width,
        .height = v->height,
        .left = v->left,
        .top = v->top,
        .zoom = v->zoom,
        .index = v->frame,
        .smooth = v->smooth,
        .dither = v->dither,
        .weights = v->weights,
        .wipe = v->wipe,
        .wipe_at = v->wipe_at,
        .difference = v->difference,
        .gain = v->gain,
    };
    TSR_TRY(tsr_vk_show_frame(p->e->vk, &stack, &show, *canvas));
    TSR_TRY(tsr_vk_start(p->e->vk, NULL));
    tsr_vk_canvas_image(*canvas, &out->image, &out->view, &out->width, &out->height);
error:
    tsr_watch_give(&p->pool, &flat);
    return status;
}

/* ---------------------------------------------------------------- comparing */

void tsr_preview_keep(tsr_preview *p) {
    for (int64_t f = 0; f < p->frames; f++) {
        tsr_watch_frame *w = &p->frame[f];
        bool whole = w->fresh && w->come == p->plan->y.tiles * p->plan->x.tiles;
        tsr_watch_give(&p->pool, &w->reference);
        w->reference = whole ? w->fresh : w->old;
        if (w->reference)
            w->reference->users++;
        p->info.has_reference |= w->reference != NULL;
    }
    p->info.psnr = NAN;
}

void tsr_preview_drop_reference(tsr_preview *p) {
    for (int64_t f = 0; f < p->frames; f++)
        tsr_watch_give(&p->pool, &p->frame[f].reference);
    p->info.has_reference = false;
    p->info.psnr = NAN;
}

tsr_status tsr_preview_compare(tsr_preview *p, int64_t frame, int x, int y, int width, int height) {
    tsr_status status;
    if (frame < 0 || frame >= p->frames || !p->frame[frame].reference) {
        p->info.psnr = NAN;
        return TSR_OK;
    }
    tsr_vk_stack stack = tsr_watch_stack(p, frame, false, tsr_now(), NULL);
    TSR_TRY(tsr_vk_error_begin(p->e->vk, &stack, x, y, width, height));
    TSR_TRY(tsr_vk_start(p->e->vk, NULL));
    p->comparing = true;
    return TSR_OK;
error:
    return status;
}

tsr_status tsr_preview_pixels(tsr_preview *p, int64_t frame, tsr_pixels pixels, bool dither, tsr_frame *out) {
    tsr_status status;
    if (tsr_preview_frame_state(p, frame) != TSR_FRAME_WHOLE)
        return tsr_fail(TSR_ERR_ARGUMENT, "preview: frame %lld is not decoded yet; wait for it", (long long)frame);
    TSR_TRY(tsr_vk_resolve(p->e->vk, p->frame[frame].fresh->frames, 0, frame, pixels, dither));
    TSR_TRY(tsr_vk_submit(p->e->vk));
    *out = (tsr_frame){.index = frame, .width = p->info.width, .height = p->info.height, .pixels = pixels};
    out->data = tsr_vk_pixels(p->e->vk, &out->bytes);
    if (!out->data)
        return tsr_fail(TSR_ERR_DEVICE, "preview: Vulkan gave no pixels of frame %lld", (long long)frame);
    return TSR_OK;
error:
    return status;
}
