/* How fast the device starts, blends and resolves: `meson test --benchmark vulkan -v`. 1920x1080,
 * tiles of 512x512 that overlap by 64, five frames a run, the best of three runs. */
#include "vulkan/internal.h"

#include <stdio.h>
#include <stdlib.h>

enum { W = 1920, H = 1080, TILE = 512, STEP = TILE - 64, FRAMES = 5, RUNS = 3 };

static void must(tsr_status status) {
    if (status == TSR_OK)
        return;
    fprintf(stderr, "%s\n", tsr_last_error());
    exit(1);
}

typedef struct bench {
    tsr_vk *vk;
    tsr_vk_slab *slab;
    tsr_vk_frames *frames;
    tsr_dtype slot;
    float weight[TILE];
} bench;

/* One frame from its tiles; the pixels of all tiles. */
static double blend_frame(bench *b) {
    double pixels = 0;
    for (int y = 0, first = 1;; y = y + STEP + TILE > H ? H - TILE : y + STEP) {
        for (int x = 0;; x = x + STEP + TILE > W ? W - TILE : x + STEP, first = 0) {
            must(tsr_vk_blend_tile(b->vk, &(tsr_vk_blend){.slab = b->slab,
                                              .dtype = b->slot,
                                              .x = x,
                                              .y = y,
                                              .width = TILE,
                                              .height = TILE,
                                              .weight_x = b->weight,
                                              .weight_y = b->weight,
                                              .frames = b->frames,
                                              .first = first}));
            pixels += TILE * TILE;
            if (x + TILE == W)
                break;
        }
        first = 0;
        if (y + TILE == H)
            return pixels;
    }
}

static void time_blends(bench *b) {
    double best = 1e9, tiles = 0;
    for (int run = 0; run <= RUNS; run++) { /* the first compiles */
        double t = tsr_now();
        for (int i = 0; i < FRAMES; i++)
            tiles = blend_frame(b);
        must(tsr_vk_submit(b->vk));
        t = (tsr_now() - t) / FRAMES;
        if (!run)
            printf("  first run %.0f ms\n", t * FRAMES * 1e3);
        else if (t < best)
            best = t;
    }
    printf("  blend   %s -> %s     %7.1f Mpx/s of frame, %7.1f of tiles\n", tsr_dtype_name(b->slot),
        tsr_dtype_name(b->frames->dtype), W * H / best * 1e-6, tiles / best * 1e-6);
}

static void time_untiled(bench *b, size_t bytes) {
    double best = 1e9;
    if ((size_t)W * H * 3 * tsr_dtype_size(b->slot) > bytes)
        return;
    for (int run = 0; run < RUNS; run++) {
        double t = tsr_now();
        for (int i = 0; i < FRAMES; i++)
            must(tsr_vk_blend_tile(b->vk,
                &(tsr_vk_blend){
                    .slab = b->slab, .dtype = b->slot, .width = W, .height = H, .frames = b->frames, .first = true}));
        must(tsr_vk_submit(b->vk));
        t = (tsr_now() - t) / FRAMES;
        best = t < best ? t : best;
    }
    printf("  untiled %s -> %s     %7.1f Mpx/s\n", tsr_dtype_name(b->slot), tsr_dtype_name(b->frames->dtype),
        W * H / best * 1e-6);
}

static void time_resolves(bench *b) {
    static const struct {
        const char *name;
        tsr_pixels pixels;
        bool dither;
    } modes[] = {
        {"rgb8", TSR_PIXELS_RGB8, false},
        {"rgb8, dithered", TSR_PIXELS_RGB8, true},
        {"rgb16", TSR_PIXELS_RGB16, false},
        {"rgb f32", TSR_PIXELS_RGB_F32, false},
    };
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
        double best = 1e9;
        for (int run = 0; run <= RUNS; run++) {
            double t = tsr_now();
            for (int i = 0; i < FRAMES; i++) {
                must(tsr_vk_resolve(b->vk, b->frames, 0, i, modes[m].pixels, modes[m].dither));
                must(tsr_vk_submit(b->vk));
            }
            t = (tsr_now() - t) / FRAMES;
            if (run && t < best)
                best = t;
        }
        printf("  resolve %s -> %-14s %7.1f Mpx/s\n", tsr_dtype_name(b->frames->dtype), modes[m].name,
            W * H / best * 1e-6);
    }
}

int main(void) {
    bench b = {0};
    double t = tsr_now();
    must(tsr_vk_create(&b.vk, &(tsr_vk_params)TSR_VK_PARAMS_DEFAULT));
    printf("%s: ready in %.0f ms\n", tsr_vk_device_name(b.vk), (tsr_now() - t) * 1e3);
    size_t bytes = (size_t)W * H * 12;
    bytes = tsr_align(bytes, 4096);
    float *slots = tsr_mem_alloc(bytes);
    for (size_t i = 0; slots && i < bytes / 4; i++)
        slots[i] = 0x1.8p-1f;
    for (int i = 0; i < TILE; i++)
        b.weight[i] = 0.5f;
    must(tsr_vk_slab_host(b.vk, slots, bytes, &b.slab, NULL));
    for (int k = 0; k < 4; k++) {
        b.slot = k & 1 ? TSR_F16 : TSR_F32;
        must(tsr_vk_frames_create(b.vk, W, H, k & 2 ? TSR_F16 : TSR_F32, 1, &b.frames));
        time_blends(&b);
        time_untiled(&b, bytes);
        if (b.slot == TSR_F32)
            time_resolves(&b);
        tsr_vk_frames_destroy(b.vk, &b.frames);
    }
    tsr_vk_slab_destroy(b.vk, &b.slab);
    tsr_vk_destroy(&b.vk);
    tsr_mem_free(slots);
    return 0;
}
