/* What the tests of the Vulkan floor share. */
#ifndef VULKAN_HELP_H
#define VULKAN_HELP_H

#include "vulkan/internal.h"
#include "vulkan/show.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        tsr_status status_ = (call);                                                                                   \
        cr_assert(status_ == TSR_OK, "%s: %d, %s", #call, status_, tsr_last_error());                                  \
    } while (0)

static int said;  /* validation messages, also those after the device is gone */
static int alive; /* devices */

static inline void on_log(void *user, tsr_log_level level, const char *line) {
    (void)user;
    if (level == TSR_LOG_ERROR) {
        said++;
        fprintf(stderr, "%s\n", line);
    }
}

/* With validation where it is installed; skips the test where there is no Vulkan at all. */
static inline tsr_vk *make(bool no_import) {
    tsr_vk *vk = NULL;
    tsr_log_set(TSR_LOG_ERROR, on_log, NULL);
    tsr_vk_params params = {.index = -1, .validation = true, .no_host_import = no_import};
    tsr_status status = tsr_vk_create(&vk, &params);
    if (status == TSR_ERR_UNSUPPORTED) {
        params.validation = false;
        status = tsr_vk_create(&vk, &params);
    }
    if (status == TSR_ERR_DEVICE)
        cr_skip_test("no Vulkan here: %s", tsr_last_error());
    cr_assert(status == TSR_OK, "%s", tsr_last_error());
    alive++;
    return vk;
}

/* Said in the test itself: Criterion does not look at how its process ends, which is where the leak
 * checker speaks. */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
static inline void no_leaks(void) {
    cr_assert_eq(__lsan_do_recoverable_leak_check(), 0);
}
#else
static inline void no_leaks(void) {
}
#endif

static inline void drop(tsr_vk *vk) {
    cr_assert_eq(tsr_vk_validation_messages(vk), 0);
    cr_assert_eq(vk->used - VK_BATCHES * vk->batch[0].upload.taken - vk->dither.taken - vk->readback[0].b.taken -
                     vk->readback[1].b.taken - vk->error.taken,
        0);
    tsr_vk_destroy(&vk);
    cr_assert_null(vk);
    cr_assert_eq(said, 0, "validation has something to say");
    if (!--alive) /* Mesa points behind the headers of its living blocks, which then look leaked */
        no_leaks();
}

static inline size_t pages(size_t bytes) {
    return tsr_align(bytes, 4096);
}

/* The numbers of a frame as they are: RGB_F32. */
static inline const float *read_frame(tsr_vk *vk, tsr_vk_frames *f, int frame) {
    size_t bytes;
    OK(tsr_vk_resolve(vk, f, frame, 0, TSR_PIXELS_RGB_F32, false));
    OK(tsr_vk_submit(vk));
    const float *p = tsr_vk_pixels(vk, &bytes);
    cr_assert(p && bytes == (size_t)f->width * (size_t)f->height * 12);
    return p;
}

/* A frame holding these f32 numbers exactly, through a slab of its own (to be destroyed by the
 * caller). */
static inline tsr_vk_slab *fill_frame(tsr_vk *vk, tsr_vk_frames *f, const float *v, void **memory) {
    size_t bytes = (size_t)f->width * (size_t)f->height * 12;
    tsr_vk_slab *s;
    *memory = tsr_mem_alloc(pages(bytes));
    memcpy(*memory, v, bytes);
    OK(tsr_vk_slab_host(vk, *memory, pages(bytes), &s, NULL));
    OK(tsr_vk_blend_tile(
        vk, &(tsr_vk_blend){
                .slab = s, .dtype = TSR_F32, .width = f->width, .height = f->height, .frames = f, .first = true}));
    return s;
}

static inline void move_canvas(tsr_vk *vk, const vk_batch *batch, VkImage image, VkImageLayout from, VkImageLayout to) {
    VkImageMemoryBarrier change = {
        .sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER,
        .srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT,
        .dstAccessMask = VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT,
        .oldLayout = from,
        .newLayout = to,
        .srcQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
        .dstQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
        .image = image,
        .subresourceRange = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1},
    };
    const VkPipelineStageFlags work = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
    vk->d.vkCmdPipelineBarrier(batch->commands, work, work, 0, 0, NULL, 0, NULL, 1, &change);
}

/* RGBA8 of the canvas' upper left w x h. */
static inline void read_canvas(tsr_vk *vk, const tsr_vk_canvas *canvas, int w, int h, uint8_t *out) {
    uint64_t image, view;
    int cw, ch;
    vk_buffer b;
    vk_batch *batch;
    tsr_vk_canvas_image(canvas, &image, &view, &cw, &ch);
    cr_assert(cw >= w && ch >= h);
    OK(tsr_vk_buffer_create(vk, &b, (VkDeviceSize)(w * h * 4), VK_HOME_READBACK, "canvas"));
    OK(tsr_vk_batch_room(vk, 1, 0, NULL, 0, &batch));
    move_canvas(vk, batch, (VkImage)image, VK_IMAGE_LAYOUT_GENERAL, VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL);
    VkBufferImageCopy copy = {
        .imageSubresource = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 0, 1}, .imageExtent = {(uint32_t)w, (uint32_t)h, 1}};
    vk->d.vkCmdCopyImageToBuffer(
        batch->commands, (VkImage)image, VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL, b.buffer, 1, &copy);
    move_canvas(vk, batch, (VkImage)image, VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL, VK_IMAGE_LAYOUT_GENERAL);
    OK(tsr_vk_submit(vk));
    memcpy(out, b.mapped, (size_t)(w * h * 4));
    tsr_vk_buffer_destroy(vk, &b);
}

static inline int open_fds(void) {
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

#endif
