/* The layers of a watched frame: drawn onto a canvas, flattened, compared. */
#include "vulkan/show.h"

#include "vulkan/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_TAPS = 8, GROUP_X = 16, GROUP_Y = 4, GROUP = 64 }; /* groups as the shaders say */
enum { FRESH = 1, FRESH_WHOLE = 2, OLD = 4, ROUGH = 8 };
enum { SMOOTH = 1, WEIGHTS = 2, WIPE = 4, DIFFERENCE = 8, DITHER_SCREEN = 16, DITHER_NONE = 32, SHRUNK = 64 };
enum { BIND_TABLES = 3, BIND_ROUGH, BIND_DITHER, BIND_CANVAS, BIND_OUT }; /* before them the three layers */

struct tsr_vk_rough {
    vk_buffer b;
    int frames, height, width;
};

struct tsr_vk_canvas {
    bool deep;
    int width, height;
    VkImage image;
    VkDeviceMemory memory;
    VkImageView view;
    bool fresh; /* in no layout yet */
};

typedef struct show_push { /* as in layers.glsl */
    int32_t size[2], columns, rough_at, rough_size[2], unused[2], area[4];
    float map[4], look[4];
} show_push;
_Static_assert(sizeof(show_push) == VK_SHOW_PUSH_BYTES, "push constants");

/* ---------------------------------------------------------------- rough pictures */

tsr_status tsr_vk_rough_create(
    tsr_vk *vk, const uint32_t *pixels, int frames, int height, int width, tsr_vk_rough **out) {
    size_t n = (size_t)frames * (size_t)height * (size_t)width * sizeof *pixels;
    *out = NULL;
    if (n > vk->range_most)
        return tsr_fail(TSR_ERR_UNSUPPORTED, "vulkan: rough pictures of %zu bytes; one buffer holds %zu", n,
            (size_t)vk->range_most);
    tsr_vk_rough *r = calloc(1, sizeof *r);
    if (!r)
        return tsr_fail(TSR_ERR_MEMORY, "vulkan: no memory for rough pictures");
    *r = (tsr_vk_rough){.frames = frames, .height = height, .width = width};
    tsr_status status = tsr_vk_buffer_create(vk, &r->b, n, VK_HOME_UPLOAD, "rough pictures");
    if (status != TSR_OK) {
        free(r);
        return status;
    }
    memcpy(r->b.mapped, pixels, n);
    *out = r;
    return TSR_OK;
}

void tsr_vk_rough_destroy(tsr_vk *vk, tsr_vk_rough **r) {
    if (!*r)
        return;
    tsr_vk_drain(vk);
    tsr_vk_buffer_destroy(vk, &(*r)->b);
    free(*r);
    *r = NULL;
}

/* ---------------------------------------------------------------- canvas */

static void discard_image(tsr_vk *vk, tsr_vk_canvas *c) {
    vk->d.vkDestroyImageView(vk->device, c->view, NULL);
    vk->d.vkDestroyImage(vk->device, c->image, NULL);
    vk->d.vkFreeMemory(vk->device, c->memory, NULL);
    *c = (tsr_vk_canvas){.deep = c->deep};
}

tsr_status tsr_vk_canvas_create(tsr_vk *vk, bool deep, tsr_vk_canvas **out) {
    (void)vk;
    *out = calloc(1, sizeof **out);
    if (!*out)
        return tsr_fail(TSR_ERR_MEMORY, "vulkan: no memory for a canvas");
    (*out)->deep = deep;
    return TSR_OK;
}

void tsr_vk_canvas_destroy(tsr_vk *vk, tsr_vk_canvas **c) {
    if (!*c)
        return;
    vk->d.vkQueueWaitIdle(vk->queue); /* readers are others' submissions */
    discard_image(vk, *c);
    free(*c);
    *c = NULL;
}

static tsr_status make_image(tsr_vk *vk, tsr_vk_canvas *c, int width, int height) {
    tsr_status status;
    VkFormat format = c->deep ? VK_FORMAT_R16G16B16A16_SFLOAT : VK_FORMAT_R8G8B8A8_UNORM;
    VkImageCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO,
        .imageType = VK_IMAGE_TYPE_2D,
        .format = format,
        .extent = {(uint32_t)width, (uint32_t)height, 1},
        .mipLevels = 1,
        .arrayLayers = 1,
        .samples = VK_SAMPLE_COUNT_1_BIT,
        .usage = VK_IMAGE_USAGE_STORAGE_BIT | VK_IMAGE_USAGE_SAMPLED_BIT | VK_IMAGE_USAGE_TRANSFER_SRC_BIT,
    };
    VK(vk->d.vkCreateImage(vk->device, &info, NULL, &c->image));
    VkMemoryRequirements need;
    vk->d.vkGetImageMemoryRequirements(vk->device, c->image, &need);
    int type = tsr_vk_memory_type_index(vk, need.memoryTypeBits, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT, 0);
    VkMemoryAllocateInfo allocate = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .allocationSize = need.size,
        .memoryTypeIndex = type < 0 ? 0 : (uint32_t)type,
    };
    VK(vk->d.vkAllocateMemory(vk->device, &allocate, NULL, &c->memory));
    VK(vk->d.vkBindImageMemory(vk->device, c->image, c->memory, 0));
    VkImageViewCreateInfo view = {
        .sType = VK_STRUCTURE_TYPE_IMAGE_VIEW_CREATE_INFO,
        .image = c->image,
        .viewType = VK_IMAGE_VIEW_TYPE_2D,
        .format = format,
        .subresourceRange = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1},
    };
    VK(vk->d.vkCreateImageView(vk->device, &view, NULL, &c->view));
    c->width = width;
    c->height = height;
    c->fresh = true;
    return TSR_OK;
error:
    discard_image(vk, c);
    return status;
}

static tsr_status grow_canvas(tsr_vk *vk, tsr_vk_canvas *c, int width, int height) {
    tsr_status status;
    int most = (int)vk->properties.limits.maxImageDimension2D;
    if (c->width >= width && c->height >= height)
        return TSR_OK;
    if (width < 1 || height < 1 || width > most || height > most)
        return tsr_fail(TSR_ERR_ARGUMENT, "vulkan: a canvas of %dx%d; sides are 1 to %d", width, height, most);
    TSR_TRY(tsr_vk_submit(vk)); /* a recorded picture may use it */
    VK(vk->d.vkQueueWaitIdle(vk->queue));
    width = width > c->width ? width : c->width;
    height = height > c->height ? height : c->height;
    discard_image(vk, c);
    TSR_TRY(make_image(vk, c, width, height));
    return TSR_OK;
error:
    return status;
}

void tsr_vk_canvas_image(const tsr_vk_canvas *c, uint64_t *image, uint64_t *view, int *width, int *height) {
    *image = (uint64_t)c->image;
    *view = (uint64_t)c->view;
    *width = c->width;
    *height = c->height;
}

/* Before: earlier readers are done. After: later ones see it. */
static void canvas_barrier(tsr_vk *vk, const vk_batch *b, tsr_vk_canvas *c, bool before) {
    const VkPipelineStageFlags compute = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                               fragment = VK_PIPELINE_STAGE_FRAGMENT_SHADER_BIT;
    VkImageMemoryBarrier change = {
        .sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER,
        .srcAccessMask = before ? 0 : VK_ACCESS_SHADER_WRITE_BIT,
        .dstAccessMask = before ? VK_ACCESS_SHADER_WRITE_BIT : VK_ACCESS_SHADER_READ_BIT,
        .oldLayout = c->fresh ? VK_IMAGE_LAYOUT_UNDEFINED : VK_IMAGE_LAYOUT_GENERAL,
        .newLayout = VK_IMAGE_LAYOUT_GENERAL,
        .srcQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
        .dstQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
        .image = c->image,
        .subresourceRange = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1},
    };
    c->fresh = false;
    vk->d.vkCmdPipelineBarrier(
        b->commands, before ? fragment : compute, before ? compute : fragment, 0, 0, NULL, 0, NULL, 1, &change);
}

/* ---------------------------------------------------------------- pipelines */

static VkDescriptorType type_of(uint32_t binding) {
    return binding < BIND_TABLES || binding == BIND_DITHER ? VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER
           : binding == BIND_CANVAS                        ? VK_DESCRIPTOR_TYPE_STORAGE_IMAGE
                                                           : VK_DESCRIPTOR_TYPE_STORAGE_BUFFER;
}

static tsr_status need_layouts(tsr_vk *vk) {
    tsr_status status;
    if (vk->show_layout)
        return TSR_OK;
    VkDescriptorSetLayoutBinding bindings[VK_SHOW_BINDINGS];
    for (uint32_t i = 0; i < VK_SHOW_BINDINGS; i++)
        bindings[i] = (VkDescriptorSetLayoutBinding){
            .binding = i,
            .descriptorType = type_of(i),
            .descriptorCount = 1,
            .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT,
        };
    VkDescriptorSetLayoutCreateInfo set = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
        .bindingCount = VK_SHOW_BINDINGS,
        .pBindings = bindings,
    };
    if (!vk->show_set_layout)
        VK(vk->d.vkCreateDescriptorSetLayout(vk->device, &set, NULL, &vk->show_set_layout));
    VkPushConstantRange push = {.stageFlags = VK_SHADER_STAGE_COMPUTE_BIT, .size = VK_SHOW_PUSH_BYTES};
    VkPipelineLayoutCreateInfo layout = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
        .setLayoutCount = 1,
        .pSetLayouts = &vk->show_set_layout,
        .pushConstantRangeCount = 1,
        .pPushConstantRanges = &push,
    };
    VK(vk->d.vkCreatePipelineLayout(vk->device, &layout, NULL, &vk->show_layout));
    return TSR_OK;
error:
    return status;
}

/* ---------------------------------------------------------------- the stack */

static size_t table_floats(const tsr_vk_stack *s) {
    return s->columns ? 2 * ((size_t)s->width + (size_t)s->height) + (size_t)s->columns * (size_t)s->rows : 0;
}

static tsr_status add_layer(const tsr_vk *vk, const tsr_vk_stack *s, const tsr_vk_layer *l, int bit, int *layers) {
    const tsr_vk_frames *f = l->frames;
    if (!f)
        return TSR_OK;
    if (f->width != s->width || f->height != s->height || l->frame < 0 || l->frame >= f->count)
        return tsr_fail(TSR_ERR_ARGUMENT, "vulkan: a layer that does not fit a frame of %dx%d", s->width, s->height);
    VkDeviceSize bytes = f->frame[l->frame].bytes, texels = bytes / tsr_dtype_size(f->dtype);
    if (bytes > vk->range_most || texels > vk->properties.limits.maxTexelBufferElements)
        return tsr_fail(TSR_ERR_UNSUPPORTED,
            "vulkan: frames of %dx%d are too large for %s to show; render them to a file", s->width, s->height,
            vk->properties.deviceName);
    *layers |= bit;
    return TSR_OK;
}

/* What of the push constants all shaders share; which layers there are. */
static tsr_status check_stack(const tsr_vk *vk, const tsr_vk_stack *s, show_push *push, int *layers) {
    *push = (show_push){.size = {s->width, s->height}, .columns = s->columns};
    *layers = s->columns ? 0 : FRESH_WHOLE;
    if (s->width < 8 || s->height < 8 || s->width % 8 || s->height % 8)
        return tsr_fail(TSR_ERR_ARGUMENT, "vulkan: a frame of %dx%d; sides are multiples of 8", s->width, s->height);
    tsr_status status;
    TSR_TRY(add_layer(vk, s, &s->fresh, FRESH, layers));
    TSR_TRY(add_layer(vk, s, &s->old, OLD, layers));
    TSR_TRY(add_layer(vk, s, &s->reference, 0, layers));
    if (s->rough && s->rough_frame >= 0 && s->rough_frame < s->rough->frames) {
        *layers |= ROUGH;
        push->rough_size[0] = s->rough->width;
        push->rough_size[1] = s->rough->height;
        push->rough_at = s->rough_frame * s->rough->height * s->rough->width;
    }
    return TSR_OK;
error:
    return status;
}

/* What is read as texels: the layers, and the dither pattern, which also stands where layers are absent, unread. */
static tsr_status bind_texels(tsr_vk *vk, vk_batch *b, const tsr_vk_stack *s, VkBufferView texels[BIND_DITHER + 1]) {
    tsr_status status;
    const tsr_vk_layer *layer[BIND_TABLES] = {&s->fresh, &s->old, &s->reference};
    TSR_TRY(tsr_vk_need_dither(vk));
    TSR_TRY(tsr_vk_buffer_texels(vk, &vk->dither, TSR_F32, &texels[BIND_DITHER]));
    for (int i = 0; i < BIND_TABLES; i++) {
        tsr_vk_frames *f = layer[i]->frames;
        texels[i] = texels[BIND_DITHER];
        if (f) {
            tsr_vk_touch(vk, b, f, layer[i]->frame);
            TSR_TRY(tsr_vk_buffer_texels(vk, &f->frame[layer[i]->frame], f->dtype, &texels[i]));
        }
    }
error:
    return status;
}

/* Binds the stack, and what the shader in hand writes: a canvas or a buffer. Buffers that are absent are bound to
 * something that is never read. */
static tsr_status bind_stack(
    tsr_vk *vk, vk_batch *b, const tsr_vk_stack *s, const tsr_vk_canvas *canvas, const VkDescriptorBufferInfo *out) {
    tsr_status status;
    VkDescriptorSet set;
    VkBufferView texels[BIND_DITHER + 1];
    TSR_TRY(bind_texels(vk, b, s, texels));
    TSR_TRY(tsr_vk_batch_set(vk, b, vk->show_set_layout, &set));
    VkDescriptorBufferInfo none = {b->upload.buffer, 0, vk->offset_align}, buffer[VK_SHOW_BINDINGS];
    for (int i = 0; i < VK_SHOW_BINDINGS; i++)
        buffer[i] = none;
    if (s->columns) {
        float *to = tsr_vk_batch_upload(vk, b, table_floats(s) * sizeof *to, &buffer[BIND_TABLES]);
        memcpy(to, s->x, 2 * (size_t)s->width * sizeof *to);
        memcpy(to + 2 * s->width, s->y, 2 * (size_t)s->height * sizeof *to);
        memcpy(to + 2 * (s->width + s->height), s->come, (size_t)s->columns * (size_t)s->rows * sizeof *to);
    }
    if (s->rough)
        buffer[BIND_ROUGH] = (VkDescriptorBufferInfo){s->rough->b.buffer, 0, VK_WHOLE_SIZE};
    if (out)
        buffer[BIND_OUT] = *out;
    VkDescriptorImageInfo image = {
        .imageView = canvas ? canvas->view : VK_NULL_HANDLE, .imageLayout = VK_IMAGE_LAYOUT_GENERAL};
    VkWriteDescriptorSet write[VK_SHOW_BINDINGS];
    uint32_t n = 0;
    for (uint32_t i = 0; i < VK_SHOW_BINDINGS; i++) {
        VkDescriptorType type = type_of(i);
        if (i == BIND_CANVAS && !canvas)
            continue;
        write[n++] = (VkWriteDescriptorSet){
            .sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
            .dstSet = set,
            .dstBinding = i,
            .descriptorCount = 1,
            .descriptorType = type,
            .pImageInfo = type == VK_DESCRIPTOR_TYPE_STORAGE_IMAGE ? &image : NULL,
            .pBufferInfo = type == VK_DESCRIPTOR_TYPE_STORAGE_BUFFER ? &buffer[i] : NULL,
            .pTexelBufferView = type == VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER ? &texels[i] : NULL,
        };
    }
    vk->d.vkUpdateDescriptorSets(vk->device, n, write, 0, NULL);
    vk->d.vkCmdBindDescriptorSets(b->commands, VK_PIPELINE_BIND_POINT_COMPUTE, vk->show_layout, 0, 1, &set, 0, NULL);
    return TSR_OK;
error:
    return status;
}

static void dispatch(tsr_vk *vk, vk_batch *b, VkPipeline pipe, const show_push *push, int groups_x, int groups_y) {
    vk->d.vkCmdBindPipeline(b->commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipe);
    vk->d.vkCmdPushConstants(b->commands, vk->show_layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, sizeof *push, push);
    vk->d.vkCmdDispatch(b->commands, (uint32_t)groups_x, (uint32_t)groups_y, 1);
}

/* ---------------------------------------------------------------- what is done with it */

/* Returns how the shader is to show it. */
static int fill_show(const tsr_vk_stack *s, const tsr_vk_show *o, show_push *push) {
    bool whole_pixels = !o->smooth && o->zoom >= 1;
    int taps = o->zoom < 1 ? (int)ceil(1 / o->zoom) : 1;
    bool compares = s->reference.frames != NULL;
    push->area[0] = o->width;
    push->area[1] = o->height;
    tsr_vk_dither_walk(o->index, &push->area[2], &push->area[3]);
    push->map[0] = (float)o->left;
    push->map[1] = (float)o->top;
    push->map[2] = (float)(1 / o->zoom);
    push->map[3] = (float)o->wipe_at;
    push->look[0] = (float)o->gain;
    push->look[1] = (float)(taps < MOST_TAPS ? taps : MOST_TAPS);
    return (o->smooth ? SMOOTH : 0) | (o->weights && s->columns ? WEIGHTS : 0) | (o->wipe && compares ? WIPE : 0) |
           (o->difference && compares ? DIFFERENCE : 0) | (o->dither ? 0 : DITHER_NONE) |
           (whole_pixels ? 0 : DITHER_SCREEN) | (taps > 1 ? SHRUNK : 0);
}

tsr_status tsr_vk_show_frame(tsr_vk *vk, const tsr_vk_stack *s, const tsr_vk_show *o, tsr_vk_canvas *canvas) {
    tsr_status status;
    show_push push;
    vk_batch *b;
    VkPipeline pipe;
    int layers;
    TSR_TRY(check_stack(vk, s, &push, &layers));
    TSR_TRY(need_layouts(vk));
    TSR_TRY(grow_canvas(vk, canvas, o->width, o->height));
    int how = fill_show(s, o, &push);
    TSR_TRY(tsr_vk_show_pipe(vk, VK_PIPE_SHOW + canvas->deep, layers | how << 8, &pipe));
    TSR_TRY(tsr_vk_batch_room(vk, 1, table_floats(s) * sizeof(float), NULL, 0, &b));
    TSR_TRY(bind_stack(vk, b, s, canvas, NULL));
    canvas_barrier(vk, b, canvas, true);
    dispatch(vk, b, pipe, &push, (o->width + GROUP_X - 1) / GROUP_X, (o->height + GROUP_Y - 1) / GROUP_Y);
    canvas_barrier(vk, b, canvas, false);
    return TSR_OK;
error:
    return status;
}

tsr_status tsr_vk_flatten(tsr_vk *vk, const tsr_vk_stack *s, tsr_vk_layer into) {
    tsr_status status;
    show_push push;
    vk_batch *b;
    VkPipeline pipe;
    int layers;
    TSR_TRY(check_stack(vk, s, &push, &layers));
    TSR_TRY(need_layouts(vk));
    TSR_TRY(tsr_vk_show_pipe(vk, VK_PIPE_FLATTEN + (into.frames->dtype == TSR_F16), layers, &pipe));
    TSR_TRY(tsr_vk_batch_room(vk, 1, table_floats(s) * sizeof(float), NULL, 0, &b));
    tsr_vk_touch(vk, b, into.frames, into.frame);
    VkDescriptorBufferInfo out = {into.frames->frame[into.frame].buffer, 0, VK_WHOLE_SIZE};
    TSR_TRY(bind_stack(vk, b, s, NULL, &out));
    dispatch(vk, b, pipe, &push, (s->width + GROUP - 1) / GROUP, s->height);
    return TSR_OK;
error:
    return status;
}

tsr_status tsr_vk_error_begin(tsr_vk *vk, const tsr_vk_stack *s, int x, int y, int width, int height) {
    tsr_status status;
    show_push push;
    vk_batch *b;
    VkPipeline pipe;
    int layers;
    TSR_TRY(check_stack(vk, s, &push, &layers));
    if (!s->reference.frames || x < 0 || y < 0 || width < 1 || height < 1 || width > s->width - x ||
        height > s->height - y)
        return tsr_fail(TSR_ERR_ARGUMENT, "vulkan: nothing to compare in %dx%d at %d,%d", width, height, x, y);
    TSR_TRY(need_layouts(vk));
    size_t bytes = (size_t)height * sizeof(float);
    if (vk->error_ticket > vk->started) /* still in the batch that records */
        TSR_TRY(tsr_vk_start(vk, NULL));
    TSR_TRY(tsr_vk_wait(vk, vk->error_ticket, -1, NULL));
    if (vk->error.bytes < bytes) {
        tsr_vk_buffer_destroy(vk, &vk->error);
        TSR_TRY(tsr_vk_buffer_create(vk, &vk->error, tsr_align(bytes, 16384), VK_HOME_READBACK, "errors"));
    }
    TSR_TRY(tsr_vk_show_pipe(vk, VK_PIPE_ERROR, layers, &pipe));
    TSR_TRY(tsr_vk_batch_room(vk, 1, table_floats(s) * sizeof(float), NULL, 0, &b));
    push.area[0] = x;
    push.area[1] = y;
    push.area[2] = width;
    VkDescriptorBufferInfo out = {vk->error.buffer, 0, bytes};
    TSR_TRY(bind_stack(vk, b, s, NULL, &out));
    dispatch(vk, b, pipe, &push, 1, height);
    vk->error_rows = height;
    vk->error_columns = width;
    vk->error_ticket = vk->started + 1;
    return TSR_OK;
error:
    return status;
}

double tsr_vk_error_value(tsr_vk *vk) {
    bool done = false;
    if (!vk->error_ticket || vk->error_ticket > vk->started || tsr_vk_wait(vk, vk->error_ticket, 0, &done) != TSR_OK ||
        !done)
        return NAN;
    VkMappedMemoryRange all = {
        .sType = VK_STRUCTURE_TYPE_MAPPED_MEMORY_RANGE, .memory = vk->error.memory, .size = VK_WHOLE_SIZE};
    if (!vk->error.coherent && vk->d.vkInvalidateMappedMemoryRanges(vk->device, 1, &all) < 0)
        return NAN;
    const float *row = vk->error.mapped;
    double sum = 0;
    for (int i = 0; i < vk->error_rows; i++)
        sum += (double)row[i];
    return sum / (3.0 * vk->error_rows * vk->error_columns);
}

/* ---------------------------------------------------------------- for the window */

tsr_vk_handles tsr_vk_get_handles(const tsr_vk *vk) {
    VkQueueFamilyProperties families[32];
    uint32_t n = 32;
    vkGetPhysicalDeviceQueueFamilyProperties(vk->physical, &n, families);
    return (tsr_vk_handles){
        .instance = vk->instance,
        .physical = vk->physical,
        .device = vk->device,
        .queue = vk->queue,
        .family = vk->family,
        .draws = vk->family < n && families[vk->family].queueFlags & VK_QUEUE_GRAPHICS_BIT,
        .swapchain = vk->swapchain,
    };
}
