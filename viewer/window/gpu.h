/*
 * What the interface is drawn on: a window's swapchain, or an image where there is no window
 * system. The device and its queue are the preview's; all calls come from its thread.
 */
#ifndef TSR_GPU_H
#define TSR_GPU_H

#include "ui.h"

#include <tessera/preview.h>

#include <volk.h>

enum { GPU_IN_FLIGHT = 2, GPU_IMAGES = 8, GPU_TEXTURES = 8 };

typedef struct gpu_buffer {
    VkBuffer buffer;
    VkDeviceMemory memory;
    VkDeviceSize bytes;
    void *mapped;
} gpu_buffer;

typedef struct gpu_frame { /* one that may be under way */
    VkCommandBuffer commands;
    VkFence done;
    VkSemaphore acquired;
    gpu_buffer vertices, indices;
    VkDescriptorPool sets;
} gpu_frame;

typedef struct gpu {
    VkInstance instance;
    VkPhysicalDevice physical;
    VkDevice device;
    VkQueue queue;
    uint32_t family;
    VkPhysicalDeviceMemoryProperties memory;

    VkSurfaceKHR surface; /* none: drawn on an image */
    VkSwapchainKHR swapchain;
    VkSurfaceFormatKHR format;
    bool deep;              /* more than 8 bits a channel */
    uint32_t width, height; /* of what is drawn on */
    uint32_t images;
    VkImage image[GPU_IMAGES];
    VkImageView view[GPU_IMAGES];
    VkFramebuffer framebuffer[GPU_IMAGES];
    VkSemaphore drawn[GPU_IMAGES];
    VkDeviceMemory image_memory; /* of the only image, without a surface */
    gpu_buffer readback;
    bool stale; /* the swapchain does not fit the window any more */

    VkRenderPass pass;
    VkSampler smooth, nearest; /* for the atlas; for pictures, which are drawn pixel on pixel */
    VkDescriptorSetLayout set_layout;
    VkPipelineLayout layout;
    VkPipeline pipeline;
    VkCommandPool pool;
    gpu_frame frame[GPU_IN_FLIGHT];
    unsigned turn;

    VkImage atlas;
    VkDeviceMemory atlas_memory;
    VkImageView atlas_view;
} gpu;

/* Textures of ui.h are image views; those of others are in the layout GENERAL. */

/* A surface is the gpu's from here on, also on failure. TSR_ERR_UNSUPPORTED: this device does not
 * draw on it. */
tsr_status gpu_open(gpu *g, const tsr_preview_vulkan *vk, VkSurfaceKHR surface, int width, int height);
void gpu_close(gpu *g);
/* Another font atlas: white with this alpha, one byte a pixel. The texture for ui_atlas_texture is
 * in *texture. */
tsr_status gpu_set_atlas(gpu *g, const unsigned char *alpha, int width, int height, uint64_t *texture);
/* Another size, in pixels; without a surface the size is what the caller says. Zero is a window
 * that cannot be seen. */
tsr_status gpu_resize(gpu *g, int width, int height);

/* gpu_format.c: of the formats a surface has, one of more than 8 bits where there is one; never one that converts to
 * sRGB, for the numbers are that already, nor a colour space that is not sRGB's: pictures are made for no other. False:
 * none. */
bool gpu_choose_format(const VkSurfaceFormatKHR *have, uint32_t n, VkSurfaceFormatKHR *out, bool *deep);

/* A part of the window that is of one colour where nothing lies over it. Where cores draw, filling it so takes a small
 * part of the time that triangles take. */
typedef struct gpu_fill {
    ui_color color;
    ui_rect area;
} gpu_fill;
/* Draws the lists of the frame that ui_end ended, over a colour and the fills. *drawn false: there was nothing to
 * draw on, try again after the next event. */
tsr_status gpu_draw(gpu *g, int lists, ui_color clear, const gpu_fill *fill, int fills, bool *drawn);
/* Without a surface: what was drawn last, RGB8 [height][width][3]. */
tsr_status gpu_read(gpu *g, uint8_t *rgb);

/* What failed last: one line. Functions above leave it here, not in tsr_last_error(). */
const char *gpu_last_error(void);

/* gpu_setup.c, for gpu.c */
tsr_status gpu_fail(tsr_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));
tsr_status gpu_check(VkResult r, const char *call);
tsr_status gpu_make_pass(gpu *g);
tsr_status gpu_make_pipeline(gpu *g);
tsr_status gpu_make_frames(gpu *g);
tsr_status gpu_buffer_need(gpu *g, gpu_buffer *b, VkDeviceSize bytes, VkBufferUsageFlags usage);
void gpu_buffer_free(gpu *g, gpu_buffer *b);
tsr_status gpu_make_image(gpu *g, VkFormat format, uint32_t width, uint32_t height, VkImageUsageFlags usage,
    VkImage *image, VkDeviceMemory *memory);
tsr_status gpu_make_view(gpu *g, VkImage image, VkFormat format, VkImageView *out);
tsr_status gpu_run(gpu *g, void (*record)(gpu *g, VkCommandBuffer c, void *user), void *user);
void gpu_move_image(VkCommandBuffer c, VkImage image, VkImageLayout from, VkImageLayout to);

/* Tests: the next call of the window fails as if the device were lost. */
void gpu_fail_next(void);

#define GPU_TRY(call)                                                                                                  \
    do {                                                                                                               \
        status = gpu_check((call), #call);                                                                             \
        if (status != TSR_OK)                                                                                          \
            goto error;                                                                                                \
    } while (0)
#define GPU_DO(call)                                                                                                   \
    do {                                                                                                               \
        status = (call);                                                                                               \
        if (status != TSR_OK)                                                                                          \
            goto error;                                                                                                \
    } while (0)

#endif
