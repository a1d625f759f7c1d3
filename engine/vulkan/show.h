/*
 * Frames as they are watched: layers over one another, drawn onto an image that a window shows.
 *
 *     rough picture < old < fresh (by the tiles that have come)   --zoom, compare, quantise-->  canvas
 *
 * As in vk.h, work is recorded and runs at tsr_vk_start, and all calls come from one thread.
 */
#ifndef TSR_SHOW_H
#define TSR_SHOW_H

#include "vulkan/vk.h"

/* A picture per latent frame: RGBA8 [frames][height][width], red in the low byte. */
typedef struct tsr_vk_rough tsr_vk_rough;
tsr_status tsr_vk_rough_create(
    tsr_vk *vk, const uint32_t *pixels, int frames, int height, int width, tsr_vk_rough **out);
void tsr_vk_rough_destroy(tsr_vk *vk, tsr_vk_rough **r);

typedef struct tsr_vk_layer {
    tsr_vk_frames *frames; /* NULL: there is none */
    int frame;
} tsr_vk_layer;

/* What is seen of one frame. All layers have its size. */
typedef struct tsr_vk_stack {
    int width, height; /* multiples of 8 */
    tsr_vk_layer fresh, old, reference;
    tsr_vk_rough *rough; /* NULL: a checkerboard */
    int rough_frame;
    /* The tiles of `fresh`; columns 0: it is whole. x: for each column of the frame a tile and its weight there, the
     * next tile having the rest; y: likewise for the rows; come: for each tile how far it has faded in, 0..1, 0 where
     * it is not blended yet. */
    int columns, rows;
    const float *x, *y; /* [width][2], [height][2] */
    const float *come;  /* [rows][columns] */
} tsr_vk_stack;

typedef struct tsr_vk_show {
    int width, height; /* of the canvas, pixels */
    double left, top;  /* frame position of its upper left corner */
    double zoom;       /* canvas pixels a frame pixel */
    int64_t index;     /* of the frame: the dither pattern walks with it */
    bool smooth;       /* between pixels; else nearest. Shrunk frames are averaged in any case */
    bool dither;       /* canvases that are not deep; as tsr_vk_resolve, where pixels are drawn whole */
    bool weights;      /* show where tiles fade into each other */
    bool wipe;         /* the reference left of canvas column wipe_at */
    double wipe_at;
    bool difference; /* |seen - reference| * gain */
    double gain;
} tsr_vk_show;

/* An image to draw on, grown as needed. Beyond the frame it is transparent black. */
typedef struct tsr_vk_canvas tsr_vk_canvas;
/* deep: RGBA16F instead of RGBA8, for surfaces of more than 8 bits. */
tsr_status tsr_vk_canvas_create(tsr_vk *vk, bool deep, tsr_vk_canvas **out);
void tsr_vk_canvas_destroy(tsr_vk *vk, tsr_vk_canvas **c);
/* Draws. A canvas that is too small is made anew, after what was submitted to the queue is done. Readers that are
 * submitted to the queue later, and use it in the layout GENERAL in fragment shaders, see the picture. */
tsr_status tsr_vk_show_frame(tsr_vk *vk, const tsr_vk_stack *stack, const tsr_vk_show *show, tsr_vk_canvas *canvas);
/* VkImage and VkImageView, and the size they were made with: at least what was drawn last. */
void tsr_vk_canvas_image(const tsr_vk_canvas *c, uint64_t *image, uint64_t *view, int *width, int *height);

/* What is seen becomes one layer: into->frames is of F16 or F32 and none of the stack's. */
tsr_status tsr_vk_flatten(tsr_vk *vk, const tsr_vk_stack *stack, tsr_vk_layer into);

/* Mean squared error between what is seen and the reference over a rectangle inside the frame, of values 0..1. One
 * at a time: the result of the last is there once its ticket is done (NAN before). */
tsr_status tsr_vk_error_begin(tsr_vk *vk, const tsr_vk_stack *stack, int x, int y, int width, int height);
double tsr_vk_error_value(tsr_vk *vk);

/* What a window needs to draw with this device, as the pointers that Vulkan's handles are. */
typedef struct tsr_vk_handles {
    void *instance, *physical, *device, *queue;
    uint32_t family; /* of the queue; it draws only where draws says so */
    bool draws, swapchain;
} tsr_vk_handles;
tsr_vk_handles tsr_vk_get_handles(const tsr_vk *vk);

#endif
