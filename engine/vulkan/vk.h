/*
 * Vulkan: one device, slabs imported as buffers, tiles blended into frames, frames resolved to
 * pixels and read back.
 *
 *     slab (host pages, fd) --* weights, add--> frame accumulator --resolve--> pixels on the host
 *
 * Work is recorded by tsr_vk_blend_tile and tsr_vk_resolve, and runs at tsr_vk_submit (waits) or
 * tsr_vk_start (does not; tsr_vk_wait asks). Destroying a slab, frames or a timeline drops work
 * that was recorded and not started, and waits for what was started. All calls on one tsr_vk come
 * from one thread: validation layers stall otherwise. After TSR_ERR_DEVICE nothing but destroying
 * is of use.
 */
#ifndef TSR_VK_H
#define TSR_VK_H

#include "core/core.h"

typedef struct tsr_vk tsr_vk;
typedef struct tsr_vk_timeline tsr_vk_timeline;

typedef struct tsr_vk_params {
    int index;           /* -1: the best by tsr_vk_devices */
    const uint8_t *uuid; /* [16] of the CUDA device, or NULL */
    bool validation;     /* layers on; what they say is logged as an error and counted */
    bool no_host_import;
    /* For a window: what its system needs of the instance (VK_KHR_surface, ...), and VK_KHR_swapchain on the device
     * where it is offered. */
    const char *const *instance_extensions; /* [instance_extension_count] */
    int instance_extension_count;           /* at most 8 */
    bool swapchain;
} tsr_vk_params;
#define TSR_VK_PARAMS_DEFAULT                                                                                          \
    { .index = -1 }

tsr_status tsr_vk_create(tsr_vk **out, const tsr_vk_params *params);
/* Waits for what was started. Slabs, frames and timelines must be gone. */
void tsr_vk_destroy(tsr_vk **vk);
/* The device, its driver, what it can import and export and why not, and the other devices. */
void tsr_vk_report(tsr_vk *vk, tsr_line_fn line, void *user);
const char *tsr_vk_device_name(const tsr_vk *vk);
bool tsr_vk_is_software(const tsr_vk *vk);
/* Whether the device is the one params.uuid named: only then can memory be shared by fd. */
bool tsr_vk_is_uuid(const tsr_vk *vk, const uint8_t uuid[16]);
enum { TSR_VK_DEVICES = 32 }; /* that are looked at */
/* Indices of the devices that can be used, best first: uuid's (may be NULL), discrete GPUs, integrated ones, virtual
 * ones, software. How many. */
int tsr_vk_devices(const tsr_vk *vk, const uint8_t *uuid, int out[TSR_VK_DEVICES]);
/* Where it is not: why. */
void tsr_vk_why_other(const tsr_vk *vk, const uint8_t uuid[16], char *why, size_t size);
int tsr_vk_validation_messages(const tsr_vk *vk); /* errors and warnings so far */

/* ---------------------------------------------------------------- slabs */

typedef struct tsr_vk_slab tsr_vk_slab;
/* Host pages: 4096-aligned, whole pages (TSR_ERR_ARGUMENT otherwise). Imported where
 * VK_EXT_external_memory_host takes them; otherwise tsr_vk_blend_tile copies the tile first, at the
 * call. *imported (may be NULL) says which. The pages must outlive the slab. */
tsr_status tsr_vk_slab_host(tsr_vk *vk, void *pages, size_t bytes, tsr_vk_slab **out, bool *imported);
/* Device memory another API exported as an opaque fd (Windows: opaque NT handle) of `bytes`, the
 * full export size. An fd is taken in any case: Vulkan's after success, closed on failure. An NT
 * handle stays the caller's to close. */
tsr_status tsr_vk_slab_fd(tsr_vk *vk, tsr_handle handle, size_t bytes, tsr_vk_slab **out);
/* The other way: Vulkan allocates at least `bytes` and exports. *handle is the caller's (importing
 * it elsewhere may take it over), *export_bytes the size the importer must give.
 * TSR_ERR_UNSUPPORTED where the driver cannot. */
tsr_status tsr_vk_slab_export(tsr_vk *vk, size_t bytes, tsr_vk_slab **out, tsr_handle *handle, size_t *export_bytes);
void tsr_vk_slab_destroy(tsr_vk *vk, tsr_vk_slab **s);
/* Whether what tsr_vk_slab_export makes is allocated for its one buffer: importers have to say so. */
bool tsr_vk_exports_dedicated(const tsr_vk *vk);
/* Recorded: the slab's bytes from `at` on become copies of `word`; both multiples of 4. For probing memory that another
 * API reads too. */
tsr_status tsr_vk_slab_fill(tsr_vk *vk, tsr_vk_slab *s, size_t at, size_t bytes, uint32_t word);

/* ---------------------------------------------------------------- timelines */

/* A timeline semaphore another API can import and signal, one for each lane that produces tiles.
 * Exportable ones are TSR_ERR_UNSUPPORTED where the driver cannot (lavapipe); others are signalled
 * by the host. Starts at 0. */
tsr_status tsr_vk_timeline_create(tsr_vk *vk, bool exportable, tsr_vk_timeline **out);
/* A new handle, the caller's; CUDA's import takes over an fd, not an NT handle. */
tsr_status tsr_vk_timeline_export(tsr_vk *vk, tsr_vk_timeline *t, tsr_handle *out);
tsr_status tsr_vk_timeline_signal(tsr_vk *vk, tsr_vk_timeline *t, uint64_t value);
tsr_status tsr_vk_timeline_value(tsr_vk *vk, tsr_vk_timeline *t, uint64_t *value);
/* Started blends that wait for it are let go where their producer failed: tsr_vk_watch. */
void tsr_vk_timeline_destroy(tsr_vk *vk, tsr_vk_timeline **t);
/* The device's own: reaches a ticket (tsr_vk_start) when that submission is done, so that a
 * producer may wait on it before it writes a slot again. Exportable where timelines are. Not to be
 * signalled or destroyed. */
tsr_vk_timeline *tsr_vk_progress(tsr_vk *vk);

/* ---------------------------------------------------------------- frames and work */

/* Accumulators [3][height][width] of F16 or F32 on the device; F16 is TSR_ERR_UNSUPPORTED on the
 * rare device without 16-bit storage. */
typedef struct tsr_vk_frames tsr_vk_frames;
tsr_status tsr_vk_frames_create(tsr_vk *vk, int width, int height, tsr_dtype dtype, int count, tsr_vk_frames **out);
void tsr_vk_frames_destroy(tsr_vk *vk, tsr_vk_frames **f);
tsr_dtype tsr_vk_frames_dtype(const tsr_vk_frames *f);

typedef struct tsr_vk_blend {
    tsr_vk_slab *slab;
    size_t slot_at;                   /* bytes; the slot is [frames][3][height][width] of dtype */
    tsr_dtype dtype;                  /* F16 or F32 */
    int slot_frame;                   /* which of its frames */
    int x, y, width, height;          /* of the tile, wholly inside the frame; any parity */
    const float *weight_x, *weight_y; /* [width], [height]; copied at the call. NULL: all ones */
    tsr_vk_frames *frames;
    int frame;  /* index of the accumulator */
    bool first; /* nothing was blended into this frame yet: it starts at zero */
    /* Runs when this has reached wait_value; NULL: the tile is there. Pages that are copied take no
     * wait: TSR_ERR_ARGUMENT. */
    tsr_vk_timeline *wait;
    uint64_t wait_value;
} tsr_vk_blend;
/* frame += weight_y * weight_x * tile, in fp32. Without weights and with `first`, the frame is the
 * tile to the bit. Recorded; runs at tsr_vk_start or tsr_vk_submit, or earlier where a batch is
 * full (256 calls). A submission waits for all its wait values, and later ones queue behind it, so
 * in live mode record only tiles that are ready. */
tsr_status tsr_vk_blend_tile(tsr_vk *vk, const tsr_vk_blend *b);

/* Resolves an accumulator to pixels in host memory. With v = clamp(x * 0.5 + 0.5, 0, 1), NaN = 0, in
 * fp32:
 *
 *   RGB8      round_half_even(v * 255)
 *   dithered  floor(v * 255 + t), t in (0, 1) from a 64x64 blue noise placed by x, y and `index`:
 *             the mean is kept to 1/8192, and 8-bit values come back as they are
 *   RGB16     round_half_even(v * 65535)
 *   RGB_F32   x itself, planar [3][height][width]
 *
 * Recorded. `dither` is for RGB8 only. */
tsr_status tsr_vk_resolve(tsr_vk *vk, tsr_vk_frames *frames, int frame, int64_t index, tsr_pixels pixels, bool dither);
/* The pixels of the last tsr_vk_resolve, once it ran (NULL before): tightly packed. There are two
 * buffers in turn, so they stay valid until the second tsr_vk_resolve after theirs, or
 * tsr_vk_destroy. */
const void *tsr_vk_pixels(tsr_vk *vk, size_t *bytes);

/* The same on the host, to the bit, of a frame of RGB_F32. Needs no device. */
void tsr_vk_pixels_host(
    const float *rgb, int width, int height, int64_t index, tsr_pixels pixels, bool dither, void *out);

/* Submits what was recorded and waits for it. */
tsr_status tsr_vk_submit(tsr_vk *vk);
/* Submits without waiting. *ticket (may be NULL) counts submissions from 1 and covers all work
 * recorded so far. At most four run at once; the fifth waits for the first. */
tsr_status tsr_vk_start(tsr_vk *vk, uint64_t *ticket);
/* Waits until the ticket is done, at most `seconds` (0: only asks; negative: for ever). */
tsr_status tsr_vk_wait(tsr_vk *vk, uint64_t ticket, double seconds, bool *done);

/* Asked every tenth of a second while anything waits for submissions: whether the producer that signals timelines has
 * failed. Then what waits for them is let go. NULL: nobody asks; destroying then lets go after two seconds. */
void tsr_vk_watch(tsr_vk *vk, bool (*failed)(void *user), void *user);

/* Bytes of Vulkan memory allocated now: frames, weights, read-back, copies of slots. Imported
 * memory is not counted. */
size_t tsr_vk_used(const tsr_vk *vk);

/* Tests: the n-th Vulkan call from now fails with VK_ERROR_DEVICE_LOST (0: the next; -1: none).
 * Process-wide. Returns what was left of the order before: negative where there was none or it has
 * happened. */
int64_t tsr_vk_fail_at(int64_t n);

#endif
