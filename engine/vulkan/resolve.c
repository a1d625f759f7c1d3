/* Accumulators to pixels in memory the host reads. */
#include "vulkan/internal.h"

enum { GROUP_PIXELS = 4 * 64 /* of a workgroup, as resolve.comp says */ };

enum { MODE_RGB8, MODE_RGB8_DITHER, MODE_RGB16, MODE_PLANE_F32 }; /* as in resolve.comp */

typedef struct resolve_push { /* as in resolve.comp */
    int32_t pixels, width, at[3], out_at, dither_x, dither_y;
} resolve_push;
_Static_assert(sizeof(resolve_push) <= VK_PUSH_BYTES, "push constants");

tsr_status tsr_vk_need_dither(tsr_vk *vk) {
    tsr_status status;
    if (vk->dither.buffer)
        return TSR_OK;
    TSR_TRY(
        tsr_vk_buffer_create(vk, &vk->dither, VK_DITHER * VK_DITHER * sizeof(float), VK_HOME_UPLOAD, "dither pattern"));
    tsr_vk_dither_pattern(vk->dither.mapped);
    return TSR_OK;
error:
    return status;
}

/* The next of the read-back buffers, not in use and large enough. */
static tsr_status next_readback(tsr_vk *vk, size_t bytes, vk_readback **out) {
    tsr_status status;
    vk_readback *r = &vk->readback[vk->resolves % VK_READBACKS];
    if (r->ticket > vk->started) /* still in the batch that records */
        TSR_TRY(tsr_vk_start(vk, NULL));
    TSR_TRY(tsr_vk_wait(vk, r->ticket, -1, NULL));
    size_t room = tsr_align(bytes, 4096) + 4096; /* the last invocation writes whole words of four pixels */
    r->ticket = 0;
    if (r->b.bytes < room) {
        tsr_vk_buffer_destroy(vk, &r->b);
        TSR_TRY(tsr_vk_buffer_create(vk, &r->b, room, VK_HOME_READBACK, "read-back"));
    }
    r->bytes = bytes;
    *out = r;
    return TSR_OK;
error:
    return status;
}

/* f32 to f32 is a copy. */
static void copy_frame(tsr_vk *vk, vk_batch *batch, const vk_buffer *frame, const vk_readback *r) {
    VkBufferCopy all = {.size = r->bytes}; /* no binding, so no limit */
    vk->d.vkCmdCopyBuffer(batch->commands, frame->buffer, r->b.buffer, 1, &all);
}

/* Rows a dispatch may take: bindings within the limit, whole words at the start of each band. */
static int band_rows(const tsr_vk *vk, const tsr_vk_frames *f, size_t out_bytes) {
    size_t element = tsr_dtype_size(f->dtype), most = vk->range_most - vk->offset_align - 4096;
    size_t rows = most / ((size_t)f->width * (element > out_bytes ? element : out_bytes));
    size_t most_groups = vk->properties.limits.maxComputeWorkGroupCount[0];
    size_t rows_of_groups = most_groups * GROUP_PIXELS / (size_t)f->width;
    rows = rows < rows_of_groups ? rows : rows_of_groups;
    rows = rows < (size_t)f->height ? rows : (size_t)f->height;
    return rows >= (size_t)f->height ? f->height : (int)(rows & ~(size_t)3);
}

/* One dispatch: rows [y, end) of all channels or, as RGB_F32, of the one. */
static tsr_status resolve_band(tsr_vk *vk, vk_batch *batch, const tsr_vk_frames *f, int frame, const vk_readback *r,
    VkPipeline pipe, int mode, int channel, int64_t index, int y, int end) {
    size_t element = tsr_dtype_size(f->dtype), pixels = (size_t)f->width * (size_t)(end - y),
           before = (size_t)f->width * (size_t)y;
    size_t plane = (size_t)f->width * (size_t)f->height;
    size_t pixel_bytes = mode == MODE_PLANE_F32 ? 4 : mode == MODE_RGB16 ? 6 : 3;
    VkDescriptorBufferInfo bind[VK_BINDINGS];
    VkDeviceSize rest;
    resolve_push push = {.pixels = (int32_t)pixels, .width = f->width};
    tsr_vk_dither_walk(index, &push.dither_x, &push.dither_y);
    push.dither_y += y;
    for (int c = 0; c < 3; c++) {
        size_t at = ((size_t)(mode == MODE_PLANE_F32 ? channel : c) * plane + before) * element;
        bind[c] = tsr_vk_piece(vk, &f->frame[frame], at, pixels * element, &rest);
        push.at[c] = (int32_t)(rest / element);
    }
    size_t out = before * pixel_bytes + (mode == MODE_PLANE_F32 ? (size_t)channel * plane * 4 : 0);
    bind[3] = tsr_vk_piece(vk, &r->b, out, tsr_align((pixels + 3) * pixel_bytes, 4), &rest);
    push.out_at = (int32_t)(rest / 4);
    bind[4] = bind[0]; /* the other modes do not read it, yet it must be bound */
    if (mode == MODE_RGB8_DITHER)
        bind[4] = (VkDescriptorBufferInfo){vk->dither.buffer, 0, VK_WHOLE_SIZE};
    uint32_t n = (uint32_t)((pixels + GROUP_PIXELS - 1) / GROUP_PIXELS);
    return tsr_vk_dispatch(vk, batch, pipe, bind, VK_BINDINGS, &push, sizeof push, n, 1);
}

tsr_status tsr_vk_resolve(tsr_vk *vk, tsr_vk_frames *f, int frame, int64_t index, tsr_pixels pixels, bool dither) {
    tsr_status status;
    if (frame < 0 || frame >= f->count)
        return tsr_fail(TSR_ERR_ARGUMENT, "vulkan: frame %d of %d", frame, f->count);
    int mode = pixels == TSR_PIXELS_RGB_F32 ? MODE_PLANE_F32
               : pixels == TSR_PIXELS_RGB16 ? MODE_RGB16
               : dither                     ? MODE_RGB8_DITHER
                                            : MODE_RGB8;
    size_t pixel_bytes = mode == MODE_PLANE_F32 ? 12 : mode == MODE_RGB16 ? 6 : 3;
    int rows = band_rows(vk, f, mode == MODE_PLANE_F32 ? 4 : pixel_bytes), channels = mode == MODE_PLANE_F32 ? 3 : 1;
    bool copy = mode == MODE_PLANE_F32 && f->dtype == TSR_F32;
    vk_readback *r;
    vk_batch *batch;
    VkPipeline pipe = VK_NULL_HANDLE;
    if (mode == MODE_RGB8_DITHER)
        TSR_TRY(tsr_vk_need_dither(vk));
    if (!copy)
        TSR_TRY(tsr_vk_pipe(vk, VK_PIPE_RESOLVE + 4 * (f->dtype == TSR_F16) + mode, &pipe));
    TSR_TRY(next_readback(vk, (size_t)f->width * (size_t)f->height * pixel_bytes, &r));
    TSR_TRY(tsr_vk_batch_room(vk, channels * ((f->height + rows - 1) / rows), 0, NULL, 0, &batch));
    tsr_vk_touch(vk, batch, f, frame);
    if (copy)
        copy_frame(vk, batch, &f->frame[frame], r);
    for (int c = 0; c < channels && !copy; c++)
        for (int y = 0; y < f->height; y += rows)
            TSR_TRY(resolve_band(
                vk, batch, f, frame, r, pipe, mode, c, index, y, y + rows < f->height ? y + rows : f->height));
    r->ticket = vk->started + 1;
    vk->resolves++;
    return TSR_OK;
error:
    return status;
}

const void *tsr_vk_pixels(tsr_vk *vk, size_t *bytes) {
    const vk_readback *r = &vk->readback[(vk->resolves + VK_READBACKS - 1) % VK_READBACKS];
    bool done = false;
    *bytes = 0;
    if (!r->ticket || r->ticket > vk->started || tsr_vk_wait(vk, r->ticket, 0, &done) != TSR_OK || !done)
        return NULL;
    VkMappedMemoryRange all = {
        .sType = VK_STRUCTURE_TYPE_MAPPED_MEMORY_RANGE, .memory = r->b.memory, .size = VK_WHOLE_SIZE};
    if (!r->b.coherent && vk->d.vkInvalidateMappedMemoryRanges(vk->device, 1, &all) < 0)
        return NULL;
    *bytes = r->bytes;
    return r->b.mapped;
}
