/*
 * Preview: a decode that is watched while it runs. Tiles are blended into frames that stay on the Vulkan device, and
 * are seen as they come; the decode is cancelled and begun anew by another plan at any time, the old picture staying
 * until new tiles cover it.
 *
 *     tsr_preview_open(model, latent)   tsr_preview_start(plan)   [ tsr_preview_poll  tsr_preview_show ]...
 *
 * One thread makes all calls here, and so all Vulkan calls; none of them waits for the decode but where it says so.
 * The decode runs on threads of its own, of low priority. A window shares the Vulkan device and queue
 * (tsr_preview_get_vulkan) and draws on that same thread.
 */
#ifndef TESSERA_PREVIEW_H
#define TESSERA_PREVIEW_H

#include <tessera/tessera.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_preview tsr_preview;

typedef struct tsr_preview_params {
    const char *const *instance_extensions; /* [instance_extension_count] that a window system needs; at most 8 */
    int instance_extension_count;
    bool present;       /* VK_KHR_swapchain on the device */
    int64_t keep_bytes; /* of device memory for decoded frames; those farthest from the one shown go first */
    double fade;        /* of a tile that appears, seconds; 0, or where Vulkan is software: at once */
    /* From any thread: tsr_preview_poll has something to do. May be NULL. */
    void (*wake)(void *user);
    void *user;
} tsr_preview_params;
#define TSR_PREVIEW_PARAMS_DEFAULT                                                                                     \
    { .keep_bytes = (int64_t)2 << 30 }

/* The engine is the preview's until it is destroyed, and must not have opened Vulkan before (no decode, no report);
 * only plans may be made with it meanwhile. Its Vulkan device is opened here. */
TSR_API tsr_status tsr_preview_create(tsr_preview **out, tsr_engine *e, const tsr_preview_params *params);
/* Waits for the op in hand, on a GPU for the steps. What was drawn with the device must be gone. */
TSR_API void tsr_preview_destroy(tsr_preview **p);

enum { TSR_PREVIEW_DEVICES = 32 };

/* Vulkan's handles: VkInstance, VkPhysicalDevice, VkDevice, VkQueue. Valid until tsr_preview_destroy. */
typedef struct tsr_preview_vulkan {
    void *instance, *physical, *device, *queue;
    uint32_t family;  /* of the queue */
    bool draws;       /* the queue has graphics */
    bool swapchain;   /* VK_KHR_swapchain is on */
    bool software;    /* what is drawn takes time from the cores that decode */
    const char *name; /* of this one */
    /* Devices that can be used, best first, for tsr_engine_params.vulkan_index: for whom this one does not draw. */
    int index[TSR_PREVIEW_DEVICES], devices;
} tsr_preview_vulkan;
TSR_API tsr_preview_vulkan tsr_preview_get_vulkan(const tsr_preview *p);

/* ---------------------------------------------------------------- decoding */

/* Another video: waits for the op in hand, forgets all frames, shows a rough picture as soon as there is one (a linear
 * map of the latents, fitted once per model on tiny decodes and kept in the cache folder). Model and latent must
 * outlive the preview or its next video; both NULL: no video. */
TSR_API tsr_status tsr_preview_open(tsr_preview *p, tsr_model *m, tsr_latent *z, int video);
/* Begins to decode by *plan, which it takes over (*plan becomes NULL, also on failure). What runs is cancelled. Whole
 * frames are decoded anew, or kept where `go_on` says that only the plan's first and end frame are others. Where memory
 * runs short although the plan said it would do, a smaller one goes on (info.shrunk), here too. */
TSR_API tsr_status tsr_preview_start(tsr_preview *p, tsr_plan **plan, bool go_on);
/* Asks the decode to stop; frames stay. */
TSR_API void tsr_preview_stop(tsr_preview *p);
/* Blends tiles that are done and takes note of what the decode did. Call it when woken, and again within 10 ms while
 * info.blending. Fails where Vulkan does (TSR_ERR_DEVICE: destroy everything and start again); how the decode ended is
 * in info. */
TSR_API tsr_status tsr_preview_poll(tsr_preview *p);
/* Frames nearest to this one are kept longest, and the decode pauses where only they would have to go. */
TSR_API void tsr_preview_look_at(tsr_preview *p, int64_t frame);

typedef enum tsr_preview_state {
    TSR_PREVIEW_IDLE,      /* nothing was started yet, or it was stopped */
    TSR_PREVIEW_PREPARING, /* stopping what ran, packing weights */
    TSR_PREVIEW_DECODING,
    TSR_PREVIEW_PAUSED, /* there is no room for more frames near the one shown */
    TSR_PREVIEW_DONE,
    TSR_PREVIEW_FAILED, /* see error */
} tsr_preview_state;

typedef struct tsr_preview_info {
    tsr_preview_state state;
    const tsr_plan_info *plan;                      /* of the last start; NULL before */
    int frames, width, height;                      /* of the video; 0: none */
    int whole;                                      /* frames that are decoded by this plan */
    bool blending;                                  /* poll again soon */
    bool animating;                                 /* tiles of the frame shown last fade in */
    bool rough;                                     /* there is a rough picture */
    int tile, latent;                               /* in hand; -1: none */
    double share, seconds;                          /* of the work; since start, until its end */
    double first_seconds;                           /* from start to its first whole frame; 0: not yet */
    int64_t backend_bytes, slot_bytes, frame_bytes; /* really allocated: weights, arena and caches; slots; frames */
    int64_t free_bytes, total_bytes;                /* device memory as the machine reports it; 0: unknown */
    bool has_reference;                             /* tsr_preview_keep was called */
    double psnr;        /* of the last tsr_preview_compare, dB; NAN: not yet, INFINITY: equal */
    const char *error;  /* of a decode that failed; else "" */
    const char *shrunk; /* memory ran short, and `plan` is a smaller one than was started: a line about it; else "" */
} tsr_preview_info;
/* As of the last poll. Valid until the next call. */
TSR_API const tsr_preview_info *tsr_preview_get_info(tsr_preview *p);

typedef enum tsr_preview_frame {
    TSR_FRAME_MISSING,
    TSR_FRAME_OLD,     /* by an earlier plan, perhaps in part */
    TSR_FRAME_PARTIAL, /* some tiles have come */
    TSR_FRAME_WHOLE,
} tsr_preview_frame;
TSR_API tsr_preview_frame tsr_preview_frame_state(const tsr_preview *p, int64_t frame);

typedef struct tsr_preview_tile {
    int x, y, width, height; /* output pixels; neighbours overlap */
    double seconds;          /* mean of its steps so far; 0: none yet */
    bool in_hand;
} tsr_preview_tile;
/* Tiles are numbered row by row, as the plan has them. False where there is none. */
TSR_API bool tsr_preview_get_tile(const tsr_preview *p, int tile, tsr_preview_tile *out);

/* ---------------------------------------------------------------- seeing */

typedef struct tsr_preview_view {
    int64_t frame;
    int width, height; /* of the picture to draw, pixels */
    double left, top;  /* frame position of its upper left corner; a pixel's corner is a whole number */
    double zoom;       /* pixels a frame pixel */
    bool smooth;       /* interpolated; else every frame pixel is a square. Shrunk frames are averaged in any case */
    bool dither;       /* to 8 bits as render does it; false: rounded */
    bool deep;         /* 16-bit float instead of 8 bits */
    bool weights;      /* light up where tiles fade into each other */
    bool wipe;         /* the reference left of column wipe_at */
    double wipe_at;
    bool difference; /* |seen - reference| * gain instead of the picture */
    double gain;
} tsr_preview_view;
#define TSR_PREVIEW_VIEW_DEFAULT                                                                                       \
    { .zoom = 1, .dither = true, .gain = 1 }

/* An image in the layout GENERAL: its upper left width x height is the picture, transparent black beyond the frame. */
typedef struct tsr_preview_image {
    uint64_t image, view; /* VkImage, VkImageView; new ones where the picture grew */
    int width, height;    /* of the whole image */
} tsr_preview_image;
/* Draws; the image may be sampled in fragment shaders of what is submitted to the queue later. */
TSR_API tsr_status tsr_preview_show(tsr_preview *p, const tsr_preview_view *view, tsr_preview_image *out);

/* The frames seen now become the reference, by which others are compared; without frames it is forgotten. */
TSR_API void tsr_preview_keep(tsr_preview *p);
TSR_API void tsr_preview_drop_reference(tsr_preview *p);
/* PSNR between what is seen of a frame and the reference, over a rectangle inside it; info.psnr has it some polls
 * later. Without a reference of that frame it stays NAN. */
TSR_API tsr_status tsr_preview_compare(tsr_preview *p, int64_t frame, int x, int y, int width, int height);
/* The true pixels of a frame, as tsr_decode gives them. Waits for blending only. TSR_ERR_ARGUMENT where it is not
 * whole. out->data is valid until the next call. */
TSR_API tsr_status tsr_preview_pixels(tsr_preview *p, int64_t frame, tsr_pixels pixels, bool dither, tsr_frame *out);

/* Tests: the next Vulkan call fails as if the device were lost. */
TSR_API void tsr_preview_lose_device(tsr_preview *p);

#ifdef __cplusplus
}
#endif
#endif
