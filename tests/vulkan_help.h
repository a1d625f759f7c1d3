/* What the tests of the Vulkan floor share. */
#ifndef VULKAN_HELP_H
#define VULKAN_HELP_H

#include "vulkan/internal.h"

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
