/* Frames: accumulators, the pass that blends a tile into one, the pass that resolves one to pixels.
 * Where a binding is limited (128 MiB on lavapipe), planes or bands of rows are bound one after the
 * other. */
#include "vulkan/internal.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { GROUP = 64 /* invocations, as the shaders say */, SIDE_MOST = 32768 /* pixels */ };

static uint32_t groups(size_t n) {
    return (uint32_t)((n + GROUP - 1) / GROUP);
}

/* ---------------------------------------------------------------- frames */

static tsr_status need_type(const tsr_vk *vk, tsr_dtype t) {
    if (t != TSR_F32 && t != TSR_F16)
        return tsr_fail(TSR_ERR_ARGUMENT, "vulkan: tiles and frames are f32 or f16, not %s", tsr_dtype_name(t));
    if (t == TSR_F16 && !vk->f16)
        return tsr_fail(
            TSR_ERR_UNSUPPORTED, "vulkan: %s has no 16-bit storage; decode in f32", vk->properties.deviceName);
    return TSR_OK;
}

static void discard_frames(tsr_vk *vk, tsr_vk_frames *f) {
    for (int i = 0; f->frame && i < f->count; i++)
        tsr_vk_buffer_destroy(vk, &f->frame[i]);
    free(f->frame);
    free(f->touched);
    free(f);
}

tsr_status tsr_vk_frames_create(tsr_vk *vk, int width, int height, tsr_dtype dtype, int count, tsr_vk_frames **out) {
    tsr_status status;
    *out = NULL;
    TSR_TRY(need_type(vk, dtype));
    if (width < 1 || height < 1 || count < 1 || width > SIDE_MOST || height > SIDE_MOST)
        return tsr_fail(
            TSR_ERR_ARGUMENT, "vulkan: %d frames of %dx%d; sides are 1 to %d", count, width, height, SIDE_MOST);
    tsr_vk_frames *f = calloc(1, sizeof *f);
    if (!f)
        return tsr_fail(TSR_ERR_MEMORY, "vulkan: no memory for frames");
    *f = (tsr_vk_frames){.width = width, .height = height, .count = count, .dtype = dtype};
    f->frame = calloc((size_t)count, sizeof *f->frame);
    f->touched = calloc((size_t)count, sizeof *f->touched);
    if (!f->frame || !f->touched) {
        discard_frames(vk, f);
        return tsr_fail(TSR_ERR_MEMORY, "vulkan: no memory for %d frames", count);
    }
    for (int i = 0; i < count; i++) {
        status = tsr_vk_buffer_create(vk, &f->frame[i],
            (VkDeviceSize)width * (size_t)height * 3 * tsr_dtype_size(dtype), VK_HOME_DEVICE, "frame");
        if (status != TSR_OK) {
            discard_frames(vk, f);
            return status;
        }
    }
    *out = f;
    return TSR_OK;
error:
    return status;
}

void tsr_vk_frames_destroy(tsr_vk *vk, tsr_vk_frames **f) {
    if (!*f)
        return;
    tsr_vk_drain(vk);
    discard_frames(vk, *f);
    *f = NULL;
}

tsr_dtype tsr_vk_frames_dtype(const tsr_vk_frames *f) {
    return f->dtype;
}

/* ---------------------------------------------------------------- blend */

typedef struct blend_push { /* as in blend.comp */
    int32_t left, columns, frame_at, frame_plane, frame_width, slot_at, slot_plane, tile_x, tile_width, tile_row,
        tile_rows, weight_y, first;
} blend_push;
_Static_assert(sizeof(blend_push) <= VK_PUSH_BYTES, "push constants");

static tsr_status check_blend(const tsr_vk *vk, const tsr_vk_blend *b, size_t *at, size_t *bytes) {
    tsr_status status;
    TSR_TRY(need_type(vk, b->dtype));
    const tsr_vk_frames *f = b->frames;
    if (b->frame < 0 || b->frame >= f->count)
        return tsr_fail(TSR_ERR_ARGUMENT, "vulkan: frame %d of %d", b->frame, f->count);
    if (b->width < 1 || b->height < 1 || b->x < 0 || b->y < 0 || b->width > f->width - b->x ||
        b->height > f->height - b->y)
        return tsr_fail(TSR_ERR_ARGUMENT, "vulkan: a tile of %dx%d at %d,%d leaves the frame of %dx%d", b->width,
            b->height, b->x, b->y, f->width, f->height);
    size_t element = tsr_dtype_size(b->dtype), end;
    *bytes = (size_t)b->width * (size_t)b->height * 3 * element; /* sides are at most SIDE_MOST */
    if (b->slot_frame < 0 || b->slot_at % element || !tsr_mul(*bytes, (size_t)b->slot_frame, at) ||
        !tsr_add(*at, b->slot_at, at) || !tsr_add(*at, *bytes, &end) || end > b->slab->bytes)
        return tsr_fail(TSR_ERR_ARGUMENT, "vulkan: frame %d of the slot at %zu leaves the slab of %zu bytes",
            b->slot_frame, b->slot_at, b->slab->bytes);
    if (b->wait && b->slab->copy_from)
        return tsr_fail(TSR_ERR_ARGUMENT, "vulkan: tiles in pages that are not imported are copied "
                                          "at once and cannot be waited for");
    return TSR_OK;
error:
    return status;
}

static void fill_weights(float *to, const tsr_vk_blend *b) {
    int n[2] = {b->width, b->height};
    const float *from[2] = {b->weight_x, b->weight_y};
    for (int k = 0; k < 2; to += n[k++])
        for (int i = 0; i < n[k]; i++)
            to[i] = from[k] ? from[k][i] : 1.0f;
}

/* How a blend is cut: dispatches over `planes` planes and at most `rows` rows of the frame each. */
typedef struct cut {
    int planes, rows, dispatches;
    int begin, end, left, columns; /* the region: frame rows, columns */
} cut;

static cut cut_blend(const tsr_vk *vk, const tsr_vk_blend *b) {
    const tsr_vk_frames *f = b->frames;
    cut c = {.planes = 3, .begin = b->y, .end = b->y + b->height, .left = b->x, .columns = b->width};
    if (b->first)
        c = (cut){.planes = 3, .begin = 0, .end = f->height, .left = 0, .columns = f->width};
    size_t frame_row = (size_t)f->width * tsr_dtype_size(f->dtype),
           slot_row = (size_t)b->width * tsr_dtype_size(b->dtype);
    size_t row = frame_row > slot_row ? frame_row : slot_row, most = vk->range_most - vk->offset_align;
    /* all planes at once span two whole planes and the region */
    c.rows = c.end - c.begin;
    if (3 * frame_row * (size_t)f->height > most || 3 * slot_row * (size_t)b->height > most) {
        c.planes = 1;
        size_t rows = most / row; /* range_most is 128 MiB or more (at least 2^27 is required), a
                                     row 128 KiB at most */
        c.rows = rows < (size_t)c.rows ? (int)rows : c.rows;
    }
    int most_groups = (int)vk->properties.limits.maxComputeWorkGroupCount[1];
    c.rows = c.rows < most_groups ? c.rows : most_groups;
    c.dispatches = 3 / c.planes * ((c.end - c.begin + c.rows - 1) / c.rows);
    return c;
}

static int clamp_int(int v, int least, int most) {
    return v < least ? least : v > most ? most : v;
}

/* One dispatch: planes from `plane`, frame rows [y, end). */
static tsr_status blend_band(tsr_vk *vk, vk_batch *batch, const tsr_vk_blend *b, const cut *c, VkPipeline pipe,
    size_t slot, VkDescriptorBufferInfo weights, int plane, int y, int end) {
    const tsr_vk_frames *f = b->frames;
    size_t fe = tsr_dtype_size(f->dtype), se = tsr_dtype_size(b->dtype), fw = (size_t)f->width, tw = (size_t)b->width;
    size_t frame_plane = fw * (size_t)f->height, slot_plane = tw * (size_t)b->height, more = (size_t)c->planes - 1;
    int t0 = clamp_int(y - b->y, 0, b->height), t1 = clamp_int(end - b->y, 0, b->height); /* tile rows in the band */
    VkDeviceSize frame_rest, slot_rest;
    size_t slot_rows = t1 > t0 ? (size_t)(t1 - t0) : 1; /* a band beside the tile reads none, yet something is bound */
    size_t slot_first = t1 > t0 ? (size_t)t0 : 0;
    VkDescriptorBufferInfo bind[3] = {
        tsr_vk_piece(vk, &b->slab->b, slot + ((size_t)plane * slot_plane + slot_first * tw) * se,
            (more * slot_plane + slot_rows * tw) * se, &slot_rest),
        tsr_vk_piece(vk, &f->frame[b->frame], ((size_t)plane * frame_plane + (size_t)y * fw) * fe,
            (more * frame_plane + (size_t)(end - y) * fw) * fe, &frame_rest),
        weights,
    };
    blend_push push = {
        .left = c->left,
        .columns = c->columns,
        .frame_at = (int32_t)(frame_rest / fe),
        .frame_plane = (int32_t)frame_plane,
        .frame_width = f->width,
        .slot_at = (int32_t)(slot_rest / se),
        .slot_plane = (int32_t)slot_plane,
        .tile_x = b->x,
        .tile_width = b->width,
        .tile_row = y - b->y - t0,
        .tile_rows = t1 - t0,
        .weight_y = b->width + t0,
        .first = b->first,
    };
    return tsr_vk_dispatch(
        vk, batch, pipe, bind, 3, &push, sizeof push, groups((size_t)c->columns), (uint32_t)(end - y));
}

tsr_status tsr_vk_blend_tile(tsr_vk *vk, const tsr_vk_blend *b) {
    tsr_status status;
    size_t slot = 0, bytes = 0, weight_bytes;
    TSR_TRY(check_blend(vk, b, &slot, &bytes));
    weight_bytes = ((size_t)b->width + (size_t)b->height) * sizeof(float);
    cut c = cut_blend(vk, b);
    VkPipeline pipe;
    vk_batch *batch;
    VkDescriptorBufferInfo weights;
    TSR_TRY(tsr_vk_pipe(
        vk, VK_PIPE_BLEND + 4 * (c.planes == 1) + 2 * (b->dtype == TSR_F16) + (b->frames->dtype == TSR_F16), &pipe));
    TSR_TRY(tsr_vk_batch_room(vk, c.dispatches, weight_bytes, b->wait, b->wait_value, &batch));
    fill_weights(tsr_vk_batch_upload(vk, batch, weight_bytes, &weights), b);
    if (b->slab->copy_from)
        memcpy((char *)b->slab->b.mapped + slot, (const char *)b->slab->copy_from + slot, bytes);
    if (b->slab->external)
        tsr_vk_change_owner(vk, batch, b->slab, slot, bytes, true);
    tsr_vk_touch(vk, batch, b->frames, b->frame);
    for (int plane = 0; plane < 3; plane += c.planes)
        for (int y = c.begin; y < c.end; y += c.rows)
            TSR_TRY(
                blend_band(vk, batch, b, &c, pipe, slot, weights, plane, y, y + c.rows < c.end ? y + c.rows : c.end));
    if (b->slab->external)
        tsr_vk_change_owner(vk, batch, b->slab, slot, bytes, false);
    return TSR_OK;
error:
    return status;
}
