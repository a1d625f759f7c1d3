/* Vulkan: one device, slabs imported as buffers, tiles blended into frames, frames resolved to pixels and read back.
 * All calls come from one thread (house rule: see docs, validation layers stall otherwise). */
#ifndef TSR_VK_H
#define TSR_VK_H

#include "core/core.h"

typedef struct tsr_vk tsr_vk;

typedef struct tsr_vk_params {
    int index;             /* -1: by uuid, else the first real GPU, else software */
    const uint8_t *uuid;   /* of the CUDA device, or NULL */
    bool validation;
    bool no_host_import;
} tsr_vk_params;

tsr_status tsr_vk_create(tsr_vk **out, const tsr_vk_params *params);
void tsr_vk_destroy(tsr_vk **vk);
void tsr_vk_report(tsr_vk *vk, tsr_line_fn line, void *user);
const char *tsr_vk_device_name(const tsr_vk *vk);
bool tsr_vk_is_software(const tsr_vk *vk);
int tsr_vk_validation_messages(const tsr_vk *vk); /* errors and warnings so far */

/* ---- slabs */
typedef struct tsr_vk_slab tsr_vk_slab;
/* Host pages: 4096-aligned, whole pages. Imported where VK_EXT_external_memory_host takes them; otherwise blends copy
 * the slot first. *imported says which. The pages must outlive the slab. */
tsr_status tsr_vk_slab_host(tsr_vk *vk, void *pages, size_t bytes, tsr_vk_slab **out, bool *imported);
/* Opaque fd of `bytes` (the full export size). The fd is Vulkan's after success and is closed on failure. */
tsr_status tsr_vk_slab_fd(tsr_vk *vk, int fd, size_t bytes, tsr_vk_slab **out);
void tsr_vk_slab_destroy(tsr_vk *vk, tsr_vk_slab **s);

/* ---- frames: accumulators [3][height][width] of F16 or F32 on the device */
typedef struct tsr_vk_frames tsr_vk_frames;
tsr_status tsr_vk_frames_create(tsr_vk *vk, int width, int height, tsr_dtype dtype, int count, tsr_vk_frames **out);
void tsr_vk_frames_destroy(tsr_vk *vk, tsr_vk_frames **f);

typedef struct tsr_vk_blend {
    tsr_vk_slab *slab;
    size_t slot_at;        /* bytes; the slot is [frames][3][rows][columns] of dtype */
    tsr_dtype dtype;
    int slot_frame;        /* which of its frames */
    int x, y, width, height; /* of the tile in the frame */
    const float *weight_x, *weight_y; /* [width], [height] */
    tsr_vk_frames *frames;
    int frame;             /* index of the accumulator */
    bool first;            /* nothing was blended into this frame yet: it starts at zero */
} tsr_vk_blend;
/* frame += weight_y * weight_x * tile, in fp32, one compute pass. Recorded; runs at tsr_vk_submit. */
tsr_status tsr_vk_blend_tile(tsr_vk *vk, const tsr_vk_blend *b);

/* Resolves an accumulator to pixels in host memory. Dither: 8 bits, a fixed pattern by (x, y, frame index). */
tsr_status tsr_vk_resolve(tsr_vk *vk, tsr_vk_frames *frames, int frame, int64_t index, tsr_pixels pixels, bool dither);
/* Submits what was recorded and waits for it. */
tsr_status tsr_vk_submit(tsr_vk *vk);
/* The pixels of the last resolve after tsr_vk_submit: tightly packed, valid until the next tsr_vk_resolve. */
const void *tsr_vk_pixels(tsr_vk *vk, size_t *bytes);
/* Device memory that frames, weights and staging take; what the plan must know. */
size_t tsr_vk_used(const tsr_vk *vk);

#endif
