/* Blending and resolving against plain C, submissions, and silence of the validation layers
 * (synchronization validation included) over all of it. */
#include "vulkan_help.h"

#include <math.h>

static uint64_t seed = 1;
static uint32_t dice(uint32_t n) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % n;
}
static float noise(void) {
    return (float)dice(1 << 24) * (2.4f / (1 << 24)) - 1.2f;
}

/* ---------------------------------------------------------------- blend */

typedef struct tile {
    int x, y, w, h, frame;
    size_t at;
    float *wx, *wy;
} tile;

typedef struct scene {
    int width, height, tiles, frames;
    tsr_dtype slot, frame;
    tile tile[9];
    char *slab;
    size_t bytes;
} scene;

/* Random tiles over frames of any size; the first of each frame covers it only in part. Slots have
 * three frames. */
static scene make_scene(tsr_dtype slot, tsr_dtype frame) {
    scene s = {.width = 1 + (int)dice(150),
        .height = 1 + (int)dice(90),
        .tiles = 9,
        .frames = 2,
        .slot = slot,
        .frame = frame};
    size_t e = tsr_dtype_size(slot);
    for (int i = 0; i < s.tiles; i++) {
        tile *t = &s.tile[i];
        t->w = 1 + (int)dice((uint32_t)s.width), t->h = 1 + (int)dice((uint32_t)s.height);
        t->x = (int)dice((uint32_t)(s.width - t->w + 1)), t->y = (int)dice((uint32_t)(s.height - t->h + 1));
        t->frame = i % s.frames;
        t->at = s.bytes + e * dice(50);
        s.bytes = t->at + (size_t)t->w * (size_t)t->h * 9 * e;
        t->wx = malloc((size_t)t->w * sizeof(float)), t->wy = malloc((size_t)t->h * sizeof(float));
        for (int k = 0; k < t->w; k++)
            t->wx[k] = (float)dice(1000) / 999;
        for (int k = 0; k < t->h; k++)
            t->wy[k] = (float)dice(1000) / 999;
    }
    s.bytes = pages(s.bytes);
    s.slab = tsr_mem_alloc(s.bytes);
    for (size_t i = 0; i < s.bytes / e; i++) {
        float v = noise();
        tsr_from_f32(slot, &v, s.slab + i * e, 1);
    }
    return s;
}

static void free_scene(scene *s) {
    for (int i = 0; i < s->tiles; i++)
        free(s->tile[i].wx), free(s->tile[i].wy);
    tsr_mem_free(s->slab);
}

static float keep(tsr_dtype t, float v) {
    return t == TSR_F16 ? tsr_f16_to_f32(tsr_f32_to_f16(v)) : v;
}

/* [frames][3][height][width], the middle frame of each slot. */
static float *blend_in_c(const scene *s) {
    size_t plane = (size_t)s->width * (size_t)s->height, e = tsr_dtype_size(s->slot);
    float *out = calloc(plane * 3 * (size_t)s->frames, sizeof *out);
    for (int i = 0; i < s->tiles; i++) {
        const tile *t = &s->tile[i];
        for (int c = 0; c < 3; c++)
            for (int y = 0; y < t->h; y++)
                for (int x = 0; x < t->w; x++) {
                    float v;
                    tsr_to_f32(s->slot, s->slab + t->at + ((size_t)(((3 + c) * t->h + y) * t->w + x)) * e, &v, 1);
                    float *o = &out[(size_t)(t->frame * 3 + c) * plane + (size_t)((t->y + y) * s->width + t->x + x)];
                    *o = keep(s->frame, *o + t->wy[y] * t->wx[x] * v);
                }
    }
    return out;
}

/* Blends the scene; `async` in several submissions without waiting. Frames hold rubbish before. */
static float *blend_on_device(tsr_vk *vk, const scene *s, bool async, bool *imported) {
    tsr_vk_frames *f;
    tsr_vk_slab *slab;
    size_t plane = (size_t)s->width * (size_t)s->height;
    float *rubbish = malloc(plane * 12), *out = malloc(plane * 12 * (size_t)s->frames);
    OK(tsr_vk_frames_create(vk, s->width, s->height, s->frame, s->frames, &f));
    for (size_t i = 0; i < plane * 3; i++)
        rubbish[i] = NAN;
    void *memory;
    tsr_vk_slab *junk = fill_frame(vk, f, rubbish, &memory);
    OK(tsr_vk_slab_host(vk, s->slab, s->bytes, &slab, imported));
    for (int i = 0; i < s->tiles; i++) {
        const tile *t = &s->tile[i];
        tsr_vk_blend b = {.slab = slab,
            .slot_at = t->at,
            .dtype = s->slot,
            .slot_frame = 1,
            .x = t->x,
            .y = t->y,
            .width = t->w,
            .height = t->h,
            .weight_x = t->wx,
            .weight_y = t->wy,
            .frames = f,
            .frame = t->frame,
            .first = i < s->frames};
        OK(tsr_vk_blend_tile(vk, &b));
        if (async)
            OK(tsr_vk_start(vk, NULL));
    }
    for (int i = 0; i < s->frames; i++)
        memcpy(out + (size_t)i * plane * 3, read_frame(vk, f, i), plane * 12);
    tsr_vk_slab_destroy(vk, &slab);
    tsr_vk_slab_destroy(vk, &junk);
    tsr_vk_frames_destroy(vk, &f);
    tsr_mem_free(memory);
    free(rubbish);
    return out;
}

static void compare(const scene *s, const float *got, const float *want) {
    size_t n = (size_t)s->width * (size_t)s->height * 3 * (size_t)s->frames;
    /* f32: a fused multiply-add more or less; f16: with it the rounding of a sum may fall to the
     * other side */
    float most = s->frame == TSR_F16 ? 0.004f : 1e-6f;
    for (size_t i = 0; i < n; i++)
        cr_assert(fabsf(got[i] - want[i]) <= most, "%dx%d, %s into %s, number %zu: %.9g, expected %.9g", s->width,
            s->height, tsr_dtype_name(s->slot), tsr_dtype_name(s->frame), i, (double)got[i], (double)want[i]);
}

Test(blend, equals_c_and_copies_equal_imports) {
    static const tsr_dtype types[] = {TSR_F32, TSR_F16};
    tsr_vk *vk = make(false), *copying = make(true);
    for (int k = 0; k < 24; k++) {
        bool imported, copied;
        scene s = make_scene(types[k & 1], types[k >> 1 & 1]);
        float *want = blend_in_c(&s), *a = blend_on_device(vk, &s, k & 4, &imported),
              *b = blend_on_device(copying, &s, false, &copied);
        compare(&s, a, want);
        cr_assert(!memcmp(a, b, (size_t)s.width * (size_t)s.height * 12 * (size_t)s.frames),
            "copied tiles differ from imported ones");
        cr_assert_eq(imported, vk->host_import);
        cr_assert_not(copied);
        free(want), free(a), free(b);
        free_scene(&s);
    }
    drop(vk);
    drop(copying);
}

Test(blend, untiled_frames_are_the_tile_to_the_bit) {
    tsr_vk *vk = make(false);
    int w = 37, h = 21;
    size_t n = (size_t)(w * h * 3);
    float *v = malloc(n * 4);
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = dice(0x7f000000u) ^ (dice(2) << 31); /* finite, denormals left out: devices may flush them */
        bits |= 0x00800000u;
        memcpy(&v[i], &bits, 4);
    }
    v[0] = -0.0f, v[1] = INFINITY, v[2] = 3.4e38f;
    tsr_vk_frames *f;
    void *memory;
    OK(tsr_vk_frames_create(vk, w, h, TSR_F32, 1, &f));
    tsr_vk_slab *s = fill_frame(vk, f, v, &memory);
    cr_assert(!memcmp(read_frame(vk, f, 0), v, n * 4));
    tsr_vk_slab_destroy(vk, &s);
    tsr_vk_frames_destroy(vk, &f);
    tsr_mem_free(memory);
    free(v);
    drop(vk);
}

/* The same pictures through bindings too small for a plane. */
Test(blend, and_resolve_in_bands_change_nothing) {
    tsr_vk *vk = make(false);
    VkDeviceSize range = vk->range_most;
    for (int k = 0; k < 8; k++) {
        scene s = make_scene(k & 1 ? TSR_F16 : TSR_F32, k & 2 ? TSR_F16 : TSR_F32);
        float *whole = blend_on_device(vk, &s, false, NULL);
        vk->range_most = 9000; /* 1.. of the at most 150 pixels wide rows, and what alignment adds */
        float *bands = blend_on_device(vk, &s, false, NULL);
        vk->range_most = range;
        cr_assert(!memcmp(whole, bands, (size_t)s.width * (size_t)s.height * 12 * (size_t)s.frames));
        free(whole), free(bands);
        free_scene(&s);
    }
    drop(vk);
}

/* Planes of 130 MiB in f32, more than lavapipe binds at once; the tile lies across bands. */
Test(blend, of_planes_beyond_a_binding) {
    tsr_vk *vk = make(false);
    int w = 6000, h = 5700, tw = 512, th = 300, x0 = 3600, y0 = 5350;
#ifdef __SANITIZE_ADDRESS__ /* makes half a gigabyte of fresh pages slow: as many bands of a                           \
                               smaller picture */
    w /= 4, x0 /= 4;
    vk->range_most /= 4;
#endif
    size_t plane = (size_t)(tw * th), bytes = pages(plane * 6), got_bytes;
    uint16_t *slab = tsr_mem_alloc(bytes);
    for (size_t i = 0; i < plane * 3; i++)
        slab[i] = (uint16_t)(0x2c00 + dice(0x1000)); /* 1/16 to 1 */
    tsr_vk_slab *s;
    tsr_vk_frames *f;
    OK(tsr_vk_slab_host(vk, slab, bytes, &s, NULL));
    OK(tsr_vk_frames_create(vk, w, h, TSR_F32, 1, &f));
    OK(tsr_vk_blend_tile(
        vk, &(tsr_vk_blend){
                .slab = s, .dtype = TSR_F16, .x = x0, .y = y0, .width = tw, .height = th, .frames = f, .first = true}));
    OK(tsr_vk_resolve(vk, f, 0, 0, TSR_PIXELS_RGB8, false));
    OK(tsr_vk_submit(vk));
    const uint8_t *got = tsr_vk_pixels(vk, &got_bytes);
    cr_assert_eq(got_bytes, (size_t)w * (size_t)h * 3);
    size_t wrong = 0;
    for (int y = 0; y < h; y += y < y0 - 9 ? 7 : 1)
        for (int x = 0; x < w; x++)
            for (int c = 0; c < 3; c++) {
                bool inside = x >= x0 && x < x0 + tw && y >= y0 && y < y0 + th;
                float v = inside ? tsr_f16_to_f32(slab[(size_t)c * plane + (size_t)((y - y0) * tw + x - x0)]) : 0;
                wrong +=
                    got[((size_t)y * (size_t)w + (size_t)x) * 3 + (size_t)c] != (uint8_t)rintf((v * 0.5f + 0.5f) * 255);
            }
    cr_assert_eq(wrong, 0);
    tsr_vk_frames_destroy(vk, &f);
    tsr_vk_slab_destroy(vk, &s);
    tsr_mem_free(slab);
    drop(vk);
}

Test(blend, refuses_what_makes_no_sense) {
    tsr_vk *vk = make(false);
    tsr_vk_frames *f, *none;
    tsr_vk_slab *s, *bad;
    char *p = tsr_mem_alloc(3 * 4096);
    OK(tsr_vk_slab_host(vk, p, 2 * 4096, &s, NULL));
    OK(tsr_vk_frames_create(vk, 20, 20, TSR_F32, 2, &f));
    cr_assert_eq(tsr_vk_slab_host(vk, p + 64, 4096, &bad, NULL), TSR_ERR_ARGUMENT);
    cr_assert_null(bad);
    cr_assert_eq(tsr_vk_slab_host(vk, p, 4097, &bad, NULL), TSR_ERR_ARGUMENT);
    cr_assert_eq(tsr_vk_slab_host(vk, p, 0, &bad, NULL), TSR_ERR_ARGUMENT);
    cr_assert_eq(tsr_vk_frames_create(vk, 0, 4, TSR_F32, 1, &none), TSR_ERR_ARGUMENT);
    cr_assert_eq(tsr_vk_frames_create(vk, 4, 1 << 20, TSR_F32, 1, &none), TSR_ERR_ARGUMENT);
    cr_assert_eq(tsr_vk_frames_create(vk, 4, 4, TSR_BF16, 1, &none), TSR_ERR_ARGUMENT);
    cr_assert_null(none);
    tsr_vk_blend
        good = {.slab = s, .dtype = TSR_F32, .x = 4, .y = 4, .width = 16, .height = 16, .frames = f, .first = true},
        b;
    OK(tsr_vk_blend_tile(vk, &good));
#define REFUSED(change)                                                                                                \
    do {                                                                                                               \
        b = good;                                                                                                      \
        change;                                                                                                        \
        cr_assert_eq(tsr_vk_blend_tile(vk, &b), TSR_ERR_ARGUMENT, #change);                                            \
    } while (0)
    REFUSED(b.x = 5);
    REFUSED(b.y = -1);
    REFUSED(b.width = 0);
    REFUSED(b.width = INT32_MAX);
    REFUSED(b.frame = 2);
    REFUSED(b.frame = -1);
    REFUSED(b.slot_at = 2);
    REFUSED(b.slot_at = 8192 - 3071);
    REFUSED(b.slot_at = SIZE_MAX - 3);
    REFUSED(b.slot_frame = 2);
    REFUSED(b.slot_frame = INT32_MAX);
    REFUSED(b.slot_frame = -1);
    REFUSED(b.dtype = TSR_U8);
    cr_assert_eq(tsr_vk_resolve(vk, f, 2, 0, TSR_PIXELS_RGB8, false), TSR_ERR_ARGUMENT);
    OK(tsr_vk_submit(vk));
    tsr_vk_slab_destroy(vk, &s);
    tsr_vk_frames_destroy(vk, &f);
    tsr_mem_free(p);
    drop(vk);
}

/* ---------------------------------------------------------------- resolve */

static float unit(float x) {
    float v = x * 0.5f + 0.5f;
    return v > 0 ? fminf(v, 1) : 0;
}

Test(resolve, formats_equal_c) {
    tsr_vk *vk = make(false);
    static const int sizes[][2] = {{1, 1}, {3, 5}, {16, 8}, {127, 33}, {250, 40}, {255, 1}};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes * 2; k++) {
        int w = sizes[k / 2][0], h = sizes[k / 2][1];
        size_t plane = (size_t)(w * h), bytes;
        tsr_dtype t = k & 1 ? TSR_F16 : TSR_F32;
        float *v = malloc(plane * 12);
        static const float special[] = {NAN, INFINITY, -INFINITY, -1, 1, 0, -0.0f, 2, -7e4f};
        for (size_t i = 0; i < plane * 3; i++)
            v[i] = keep(t, i < 9 ? special[i] : dice(3) ? noise() : (float)dice(256) / 255 * 2 - 1);
        tsr_vk_frames *f;
        void *memory;
        OK(tsr_vk_frames_create(vk, w, h, t, 1, &f));
        tsr_vk_slab *s = fill_frame(vk, f, v, &memory);
        const float *plain = read_frame(vk, f, 0);
        for (size_t i = 0; i < plane * 3; i++)
            cr_assert(plain[i] == v[i] || (isnan(plain[i]) && isnan(v[i])));
        OK(tsr_vk_resolve(vk, f, 0, 5, TSR_PIXELS_RGB8, false));
        OK(tsr_vk_submit(vk));
        const uint8_t *b = tsr_vk_pixels(vk, &bytes);
        cr_assert_eq(bytes, plane * 3);
        OK(tsr_vk_resolve(vk, f, 0, 5, TSR_PIXELS_RGB16, false));
        OK(tsr_vk_submit(vk));
        const uint16_t *s16 = tsr_vk_pixels(vk, &bytes); /* and b is still valid */
        cr_assert_eq(bytes, plane * 6);
        for (size_t i = 0; i < plane * 3; i++) {
            float x = v[i % 3 * plane + i / 3];
            cr_assert_eq(b[i], (uint8_t)rintf(unit(x) * 255), "%g in 8 bits: %d", (double)x, b[i]);
            cr_assert_eq(s16[i], (uint16_t)rintf(unit(x) * 65535), "%g in 16 bits: %d", (double)x, s16[i]);
        }
        tsr_vk_slab_destroy(vk, &s);
        tsr_vk_frames_destroy(vk, &f);
        tsr_mem_free(memory);
        free(v);
    }
    drop(vk);
}

Test(resolve, dither_keeps_the_mean_and_exact_values) {
    tsr_vk *vk = make(false);
    int w = 128, h = 64;
    size_t plane = (size_t)(w * h), bytes;
    float *v = malloc(plane * 12);
    tsr_vk_frames *f;
    OK(tsr_vk_frames_create(vk, w, h, TSR_F32, 1, &f));
    for (int k = 0; k < 24; k++) {
        float level[3];
        for (int c = 0; c < 3; c++) {
            level[c] = k < 4 ? (float)dice(256) : (float)dice(255 << 16) / (1 << 16); /* of 255 */
            for (size_t i = 0; i < plane; i++)
                v[(size_t)c * plane + i] = level[c] / 255 * 2 - 1;
        }
        void *memory;
        tsr_vk_slab *s = fill_frame(vk, f, v, &memory);
        OK(tsr_vk_resolve(vk, f, 0, k * 1000003 - 5, TSR_PIXELS_RGB8, true));
        OK(tsr_vk_submit(vk));
        const uint8_t *b = tsr_vk_pixels(vk, &bytes);
        for (int c = 0; c < 3; c++) {
            double sum = 0;
            for (size_t i = 0; i < plane; i++) {
                sum += b[3 * i + (size_t)c];
                cr_assert(fabsf((float)b[3 * i + (size_t)c] - level[c]) < 1);
                cr_assert(k >= 4 || (float)b[3 * i + (size_t)c] == level[c], "8-bit values come back");
            }
            cr_assert(fabs(sum / (double)plane - (double)level[c]) < 2.5e-4, "mean %.6f of %.6f", sum / (double)plane,
                (double)level[c]);
        }
        tsr_vk_slab_destroy(vk, &s);
        tsr_mem_free(memory);
    }
    tsr_vk_frames_destroy(vk, &f);
    free(v);
    drop(vk);
}

Test(resolve, dither_pattern_is_every_rank_once_and_spread) {
    static float p[VK_DITHER * VK_DITHER];
    static bool seen[VK_DITHER * VK_DITHER];
    tsr_vk_dither_pattern(p);
    for (int i = 0; i < VK_DITHER * VK_DITHER; i++) {
        int k = (int)(p[i] * VK_DITHER * VK_DITHER);
        cr_assert(p[i] * VK_DITHER * VK_DITHER == (float)k + 0.5f && !seen[k]);
        seen[k] = true;
    }
    /* blue: of any 8x8 block, about as many points are below a level as of the whole (white noise:
     * 16 +- 3.5) */
    for (int y = 0; y < VK_DITHER; y += 8)
        for (int x = 0; x < VK_DITHER; x += 8) {
            int below = 0;
            for (int i = 0; i < 64; i++)
                below += p[(y + i / 8) * VK_DITHER + x + i % 8] < 0.25f;
            cr_assert(abs(below - 16) <= 4, "%d of 64 at %d,%d", below, x, y);
        }
}

/* ---------------------------------------------------------------- submissions */

Test(submit, starts_without_waiting_and_waits_for_timelines) {
    tsr_vk *vk = make(false);
    if (!vk->host_import)
        cr_skip_test("host pages are not imported here");
    tsr_vk_timeline *lane[2];
    tsr_vk_slab *s;
    tsr_vk_frames *f;
    size_t bytes;
    uint64_t ticket, again, value;
    bool done;
    float *slot = tsr_mem_alloc(4096);
    OK(tsr_vk_slab_host(vk, slot, 4096, &s, NULL));
    OK(tsr_vk_frames_create(vk, 8, 8, TSR_F32, 1, &f));
    OK(tsr_vk_start(vk, &ticket));
    cr_assert_eq(ticket, 0, "nothing recorded");
    OK(tsr_vk_submit(vk));
    cr_assert_null(tsr_vk_pixels(vk, &bytes));
    for (int i = 0; i < 2; i++)
        OK(tsr_vk_timeline_create(vk, false, &lane[i]));
    tsr_vk_blend b = {.slab = s,
        .dtype = TSR_F32,
        .width = 8,
        .height = 8,
        .frames = f,
        .first = true,
        .wait = lane[0],
        .wait_value = 3};
    OK(tsr_vk_blend_tile(vk, &b));
    b.first = false, b.wait = lane[1], b.wait_value = 1;
    OK(tsr_vk_blend_tile(vk, &b));
    OK(tsr_vk_resolve(vk, f, 0, 0, TSR_PIXELS_RGB_F32, false));
    cr_assert_null(tsr_vk_pixels(vk, &bytes), "not started");
    OK(tsr_vk_start(vk, &ticket));
    cr_assert_eq(ticket, 1);
    OK(tsr_vk_timeline_signal(vk, lane[1], 1));
    OK(tsr_vk_timeline_signal(vk, lane[0], 2));
    OK(tsr_vk_wait(vk, ticket, 0.05, &done));
    cr_assert_not(done);
    cr_assert_null(tsr_vk_pixels(vk, &bytes), "not done");
    for (int i = 0; i < 192; i++) /* written after the start, before the signal */
        slot[i] = (float)i;
    OK(tsr_vk_timeline_signal(vk, lane[0], 3));
    OK(tsr_vk_wait(vk, ticket, -1, &done));
    cr_assert(done);
    const float *p = tsr_vk_pixels(vk, &bytes);
    for (int i = 0; i < 192; i++)
        cr_assert_eq(p[i], 2 * (float)i);
    OK(tsr_vk_timeline_value(vk, tsr_vk_progress(vk), &value));
    cr_assert_eq(value, 1);
    OK(tsr_vk_start(vk, &again));
    cr_assert_eq(again, ticket);
    cr_assert_eq(tsr_vk_wait(vk, 2, 0, &done), TSR_ERR_ARGUMENT);
    /* a producer that gave up does not hang those who clean up */
    b.wait_value = 9;
    OK(tsr_vk_blend_tile(vk, &b));
    OK(tsr_vk_start(vk, NULL));
    tsr_vk_slab_destroy(vk, &s);
    tsr_vk_frames_destroy(vk, &f);
    tsr_vk_timeline_destroy(vk, &lane[0]);
    tsr_vk_timeline_destroy(vk, &lane[1]);
    tsr_mem_free(slot);
    drop(vk);
}

Test(submit, any_number_of_blends) {
    tsr_vk *vk = make(false);
    tsr_vk_slab *s;
    tsr_vk_frames *f;
    float *slot = tsr_mem_alloc(4096);
    for (int i = 0; i < 12; i++)
        slot[i] = 1;
    OK(tsr_vk_slab_host(vk, slot, 4096, &s, NULL));
    OK(tsr_vk_frames_create(vk, 2, 2, TSR_F32, 1, &f));
    for (int i = 0; i < 3000; i++)
        OK(tsr_vk_blend_tile(
            vk, &(tsr_vk_blend){.slab = s, .dtype = TSR_F32, .width = 2, .height = 2, .frames = f, .first = !i}));
    for (int i = 0; i < 5; i++) /* more resolves than buffers in one batch */
        OK(tsr_vk_resolve(vk, f, 0, 0, TSR_PIXELS_RGB8, true));
    cr_assert_eq(read_frame(vk, f, 0)[11], 3000);
    tsr_vk_slab_destroy(vk, &s);
    tsr_vk_frames_destroy(vk, &f);
    tsr_mem_free(slot);
    drop(vk);
}
