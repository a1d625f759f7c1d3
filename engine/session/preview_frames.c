/* The frames a preview keeps: accumulators go from one frame to another, and those that are worth least make room. */
#include "session/watch.h"

#include <stdlib.h>

/* ---------------------------------------------------------------- accumulators */

static int64_t size_of(const tsr_watch_pool *pool, tsr_dtype dtype) {
    return (int64_t)pool->width * pool->height * 3 * (int64_t)tsr_dtype_size(dtype);
}

static tsr_dtype dtype_of(const tsr_kept *k) {
    return tsr_vk_frames_dtype(k->frames);
}

static void destroy_kept(tsr_watch_pool *pool, tsr_kept *k) {
    pool->bytes -= size_of(pool, dtype_of(k));
    tsr_vk_frames_destroy(pool->vk, &k->frames);
    free(k);
}

static tsr_kept *spare_of(tsr_watch_pool *pool, tsr_dtype dtype) {
    for (int i = pool->spares; i-- > 0;)
        if (dtype_of(pool->spare[i]) == dtype) {
            tsr_kept *k = pool->spare[i];
            pool->spare[i] = pool->spare[--pool->spares];
            return k;
        }
    return NULL;
}

static tsr_status make_kept(tsr_watch_pool *pool, tsr_dtype dtype, tsr_kept **out) {
    if (pool->spares == pool->room) { /* room to give them all back, so that giving never fails */
        int room = pool->room ? 2 * pool->room : 64;
        tsr_kept **more = realloc(pool->spare, (size_t)room * sizeof *more);
        if (!more)
            return tsr_fail(TSR_ERR_MEMORY, "preview: no memory for frames");
        pool->spare = more;
        pool->room = room;
    }
    tsr_kept *k = calloc(1, sizeof *k);
    if (!k)
        return tsr_fail(TSR_ERR_MEMORY, "preview: no memory for frames");
    tsr_status status = tsr_vk_frames_create(pool->vk, pool->width, pool->height, dtype, 1, &k->frames);
    if (status != TSR_OK) {
        free(k);
        return status;
    }
    pool->bytes += size_of(pool, dtype);
    *out = k;
    return TSR_OK;
}

tsr_status tsr_watch_take(tsr_watch_pool *pool, tsr_dtype dtype, tsr_kept **out) {
    *out = spare_of(pool, dtype);
    while (!*out && pool->spares && pool->bytes + size_of(pool, dtype) > pool->bytes_most)
        destroy_kept(pool, pool->spare[--pool->spares]); /* of the other type */
    if (!*out && pool->bytes + size_of(pool, dtype) <= pool->bytes_most) {
        tsr_status status = make_kept(pool, dtype, out);
        if (status != TSR_OK)
            return status;
    }
    if (*out)
        (*out)->users = 1;
    return TSR_OK;
}

void tsr_watch_give(tsr_watch_pool *pool, tsr_kept **k) {
    if (*k && --(*k)->users == 0) {
        if (pool->spares < pool->room)
            pool->spare[pool->spares++] = *k;
        else
            destroy_kept(pool, *k);
    }
    *k = NULL;
}

void tsr_watch_pool_empty(tsr_watch_pool *pool) {
    while (pool->spares)
        destroy_kept(pool, pool->spare[--pool->spares]);
    free(pool->spare);
    pool->spare = NULL;
    pool->room = 0;
}

/* ---------------------------------------------------------------- room */

/* How little a frame is worth: one behind is seen again only after the others. */
static int64_t distance(const tsr_preview *p, int64_t frame) {
    return frame >= p->look_at ? frame - p->look_at : 4 * (p->look_at - frame);
}

/* Gives up the frame worth least, if it is worth less than `frame`; old pictures go before decoded ones. */
static bool give_up_one(tsr_preview *p, int64_t frame) {
    int64_t worst = -1, worst_distance = distance(p, frame);
    for (int64_t f = 0; f < p->frames; f++) {
        const tsr_watch_frame *w = &p->frame[f];
        bool decoding = w->fresh && w->when && w->come < p->plan->y.tiles * p->plan->x.tiles;
        int64_t d = distance(p, f) + (w->fresh ? 0 : p->frames);
        if ((w->fresh || w->old) && f != frame && !decoding && d > worst_distance) {
            worst = f;
            worst_distance = d;
        }
    }
    if (worst < 0)
        return false;
    tsr_watch_frame *w = &p->frame[worst];
    tsr_watch_give(&p->pool, &w->fresh);
    tsr_watch_give(&p->pool, &w->old);
    free(w->when);
    w->when = NULL;
    w->come = 0;
    return true;
}

tsr_status tsr_watch_make_room(tsr_preview *p, int64_t frame, tsr_dtype dtype, tsr_kept **out) {
    tsr_status status = tsr_watch_take(&p->pool, dtype, out);
    while (status == TSR_OK && !*out && give_up_one(p, frame))
        status = tsr_watch_take(&p->pool, dtype, out);
    return status;
}

/* ---------------------------------------------------------------- one plan after another */

/* Tiles of a frame that is not whole become one with what lies below them. */
static tsr_status flatten(tsr_preview *p, int64_t f) {
    tsr_watch_frame *w = &p->frame[f];
    tsr_kept *flat = NULL;
    tsr_status status;
    TSR_TRY(tsr_watch_make_room(p, f, dtype_of(w->fresh), &flat));
    if (flat) {
        tsr_vk_stack stack = tsr_watch_stack(p, f, true, tsr_now() + p->params.fade, NULL); /* all faded in */
        stack.reference = (tsr_vk_layer){0};
        TSR_TRY(tsr_vk_flatten(p->e->vk, &stack, (tsr_vk_layer){flat->frames, 0}));
        tsr_watch_give(&p->pool, &w->old);
        w->old = flat;
    }
    return TSR_OK;
error:
    tsr_watch_give(&p->pool, &flat);
    return status;
}

tsr_status tsr_watch_retire(tsr_preview *p, bool keep_whole) {
    tsr_status status = TSR_OK;
    int tiles = p->plan ? p->plan->y.tiles * p->plan->x.tiles : 0;
    for (int64_t f = 0; f < p->frames; f++) {
        tsr_watch_frame *w = &p->frame[f];
        if (!w->fresh || (keep_whole && w->come == tiles))
            continue;
        if (w->come == tiles) {
            tsr_watch_give(&p->pool, &w->old);
            w->old = w->fresh;
            w->fresh = NULL;
        } else if (w->come) {
            TSR_TRY(flatten(p, f));
        }
        tsr_watch_give(&p->pool, &w->fresh);
        free(w->when);
        w->when = NULL;
        w->come = 0;
    }
error:
    return status;
}

void tsr_watch_forget(tsr_preview *p) {
    for (int64_t f = 0; f < p->frames; f++) {
        tsr_watch_frame *w = &p->frame[f];
        tsr_watch_give(&p->pool, &w->fresh);
        tsr_watch_give(&p->pool, &w->old);
        tsr_watch_give(&p->pool, &w->reference);
        free(w->when);
    }
    free(p->frame);
    p->frame = NULL;
    p->frames = 0;
    tsr_watch_pool_empty(&p->pool);
}
