/* Watched frames: what is on the canvas is what the file gets; layers lie over one another as they should. */
#include "sanitized.h"
#include "vulkan_help.h"

#include "vulkan/show.h"

#include <math.h>

enum { W = 40, H = 24, PLANE = W * H };

/* A frame of smooth numbers that leave -1..1 in places. */
static void paint(float *v, float phase) {
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < PLANE; i++)
            v[c * PLANE + i] = 1.2f * sinf(phase + 0.21f * (float)(i % W) + 0.13f * (float)(i / W) + (float)c);
}

static void fill(tsr_vk *vk, tsr_vk_frames *f, const float *v) {
    void *memory;
    tsr_vk_slab *s = fill_frame(vk, f, v, &memory);
    OK(tsr_vk_submit(vk));
    tsr_vk_slab_destroy(vk, &s);
    tsr_mem_free(memory);
}

static tsr_vk_frames *frame_of(tsr_vk *vk, tsr_dtype dtype, float phase) {
    float v[3 * PLANE];
    tsr_vk_frames *f;
    OK(tsr_vk_frames_create(vk, W, H, dtype, 1, &f));
    paint(v, phase);
    fill(vk, f, v);
    return f;
}

static const tsr_vk_show plain = {.width = W, .height = H, .zoom = 1, .index = 5, .dither = true};

static void check_whole(tsr_dtype dtype, int zoom) {
    tsr_vk *vk = make(false);
    tsr_vk_frames *f = frame_of(vk, dtype, 0);
    tsr_vk_canvas *canvas;
    OK(tsr_vk_canvas_create(vk, false, &canvas));
    tsr_vk_stack stack = {.width = W, .height = H, .fresh = {f, 0}};
    tsr_vk_show show = plain;
    show.width *= zoom;
    show.height *= zoom;
    show.zoom = zoom;
    OK(tsr_vk_show_frame(vk, &stack, &show, canvas));
    uint8_t *seen = malloc((size_t)(PLANE * 4 * zoom * zoom));
    read_canvas(vk, canvas, show.width, show.height, seen);
    size_t bytes;
    OK(tsr_vk_resolve(vk, f, 0, 5, TSR_PIXELS_RGB8, true));
    OK(tsr_vk_submit(vk));
    const uint8_t *file = tsr_vk_pixels(vk, &bytes);
    for (int y = 0; y < show.height; y++)
        for (int x = 0; x < show.width; x++)
            for (int c = 0; c < 4; c++)
                cr_assert_eq(seen[4 * (y * show.width + x) + c], c == 3 ? 255 : file[3 * (y / zoom * W + x / zoom) + c],
                    "%d,%d,%d", x, y, c);
    free(seen);
    tsr_vk_canvas_destroy(vk, &canvas);
    tsr_vk_frames_destroy(vk, &f);
    drop(vk);
}

Test(show, a_frame_at_its_size_is_the_files_picture) {
    check_whole(TSR_F32, 1);
}

Test(show, so_is_a_frame_of_f16_enlarged_to_whole_pixels) {
    check_whole(TSR_F16, 3);
}

/* Two tiles beside each other that share eight columns; the left one has come, half faded in. */
static void two_tiles(float *x, float *y, float *come) {
    for (int i = 0; i < W; i++) {
        float t = ((float)i - 15.5f) / 8;
        x[2 * i] = i < 16 ? 0 : i < 24 ? 0 : 1;
        x[2 * i + 1] = i < 16 || i >= 24 ? 1 : 1 - t;
    }
    for (int i = 0; i < H; i++) {
        y[2 * i] = 0;
        y[2 * i + 1] = 1;
    }
    come[0] = 0.5f;
    come[1] = 0;
}

/* The left tile, weighted, as blend leaves it. */
static void left_tile(const float *x, const float *v, float *out) {
    for (int i = 0; i < 3 * PLANE; i++)
        out[i] = x[2 * (i % W)] == 0 ? x[2 * (i % W) + 1] * v[i] : 0;
}

Test(show, tiles_that_came_lie_over_the_old_picture) {
    tsr_vk *vk = make(false);
    tsr_vk_frames *old = frame_of(vk, TSR_F16, 2), *fresh, *flat;
    float x[2 * W], y[2 * H], come[2], v[3 * PLANE], part[3 * PLANE], was[3 * PLANE];
    two_tiles(x, y, come);
    paint(v, 1);
    left_tile(x, v, part);
    OK(tsr_vk_frames_create(vk, W, H, TSR_F32, 1, &fresh));
    OK(tsr_vk_frames_create(vk, W, H, TSR_F32, 1, &flat));
    fill(vk, fresh, part);
    memcpy(was, read_frame(vk, old, 0), sizeof was);
    tsr_vk_stack stack = {.width = W,
        .height = H,
        .fresh = {fresh, 0},
        .old = {old, 0},
        .columns = 2,
        .rows = 1,
        .x = x,
        .y = y,
        .come = come};
    OK(tsr_vk_flatten(vk, &stack, (tsr_vk_layer){flat, 0}));
    OK(tsr_vk_submit(vk));
    const float *seen = read_frame(vk, flat, 0);
    for (int i = 0; i < 3 * PLANE; i++) {
        float w = x[2 * (i % W)] == 0 ? x[2 * (i % W) + 1] : 0;
        float want = w > 0 ? 0.5f * was[i] + 0.5f * (w * v[i] + (1 - w) * was[i]) : was[i];
        cr_assert_float_eq(seen[i], want, 1e-5f, "%d: %g, not %g", i, seen[i], want);
    }
    tsr_vk_frames_destroy(vk, &old);
    tsr_vk_frames_destroy(vk, &fresh);
    tsr_vk_frames_destroy(vk, &flat);
    drop(vk);
}

Test(show, the_rough_picture_lies_below_all) {
    tsr_vk *vk = make(false);
    uint32_t texel[2 * (W / 8) * (H / 8)];
    for (size_t i = 0; i < sizeof texel / sizeof *texel; i++)
        texel[i] = i < sizeof texel / sizeof *texel / 2 ? 0xff000000 : 0xff00ff80; /* the second frame is one colour */
    tsr_vk_rough *rough;
    tsr_vk_frames *flat;
    OK(tsr_vk_rough_create(vk, texel, 2, H / 8, W / 8, &rough));
    OK(tsr_vk_frames_create(vk, W, H, TSR_F32, 1, &flat));
    tsr_vk_stack stack = {.width = W, .height = H, .rough = rough, .rough_frame = 1};
    OK(tsr_vk_flatten(vk, &stack, (tsr_vk_layer){flat, 0}));
    OK(tsr_vk_submit(vk));
    const float *seen = read_frame(vk, flat, 0), want[] = {2 * 128.0f / 255 - 1, 1, -1};
    for (int i = 0; i < 3 * PLANE; i++)
        cr_assert_float_eq(seen[i], want[i / PLANE], 1e-6f);
    tsr_vk_frames_destroy(vk, &flat);
    tsr_vk_rough_destroy(vk, &rough);
    drop(vk);
}

static float unit(float v) {
    v = v * 0.5f + 0.5f;
    return v < 0 ? 0 : v > 1 ? 1 : v;
}

Test(show, the_error_is_the_mean_of_squares_over_a_rectangle) {
    tsr_vk *vk = make(false);
    tsr_vk_frames *a = frame_of(vk, TSR_F32, 0), *b = frame_of(vk, TSR_F16, 0.3f);
    float v[2][3 * PLANE];
    double sum = 0;
    memcpy(v[0], read_frame(vk, a, 0), sizeof *v);
    memcpy(v[1], read_frame(vk, b, 0), sizeof *v);
    for (int c = 0; c < 3; c++)
        for (int y = 3; y < 20; y++)
            for (int x = 5; x < 38; x++) {
                double d = (double)unit(v[0][c * PLANE + y * W + x]) - (double)unit(v[1][c * PLANE + y * W + x]);
                sum += d * d;
            }
    tsr_vk_stack stack = {.width = W, .height = H, .fresh = {a, 0}, .reference = {b, 0}};
    cr_assert(isnan(tsr_vk_error_value(vk)));
    cr_assert_eq(tsr_vk_error_begin(vk, &stack, 5, 3, 36, 17), TSR_ERR_ARGUMENT);
    for (int i = 0; i < 2; i++)
        OK(tsr_vk_error_begin(vk, &stack, 5, 3, 33, 17));
    cr_assert(isnan(tsr_vk_error_value(vk)), "it was not even started");
    OK(tsr_vk_submit(vk));
    double mean = sum / (3 * 17 * 33);
    cr_assert_float_eq(tsr_vk_error_value(vk), mean, 1e-5 * mean);
    tsr_vk_frames_destroy(vk, &a);
    tsr_vk_frames_destroy(vk, &b);
    drop(vk);
}

/* Every way of drawing, for the validation layers. */
Test(show, all_its_ways_are_valid) {
    only_as_shipped();
    tsr_vk *vk = make(false);
    tsr_vk_frames *a = frame_of(vk, TSR_F32, 0), *b = frame_of(vk, TSR_F16, 1);
    float x[2 * W], y[2 * H], come[2];
    two_tiles(x, y, come);
    for (int deep = 0; deep < 2; deep++) {
        tsr_vk_canvas *canvas;
        OK(tsr_vk_canvas_create(vk, deep, &canvas));
        for (int i = 0; i < 64; i++) {
            tsr_vk_stack stack = {.width = W,
                .height = H,
                .fresh = {a, 0},
                .old = {i & 1 ? b : NULL, 0},
                .reference = {i & 2 ? b : NULL, 0}};
            if (i & 4)
                stack = (tsr_vk_stack){.width = W,
                    .height = H,
                    .fresh = {i & 8 ? a : NULL, 0},
                    .columns = 2,
                    .rows = 1,
                    .x = x,
                    .y = y,
                    .come = come};
            tsr_vk_show show = {.width = 30 + 3 * i,
                .height = 100 - i,
                .left = -3.5,
                .top = 2,
                .zoom = 0.3 + 0.1 * i,
                .smooth = i & 8,
                .dither = i & 16,
                .weights = i & 32,
                .wipe = i & 16,
                .wipe_at = 17,
                .difference = i & 32,
                .gain = 8};
            OK(tsr_vk_show_frame(vk, &stack, &show, canvas));
            OK(tsr_vk_start(vk, NULL));
        }
        tsr_vk_canvas_destroy(vk, &canvas);
    }
    tsr_vk_stack wrong = {.width = W + 8, .height = H, .fresh = {a, 0}};
    tsr_vk_canvas *canvas;
    OK(tsr_vk_canvas_create(vk, false, &canvas));
    cr_assert_eq(tsr_vk_show_frame(vk, &wrong, &plain, canvas), TSR_ERR_ARGUMENT);
    tsr_vk_canvas_destroy(vk, &canvas);
    tsr_vk_frames_destroy(vk, &a);
    tsr_vk_frames_destroy(vk, &b);
    drop(vk);
}
