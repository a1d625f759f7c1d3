/* Blending and resolving against plain C, the ways memory gets in, failing calls, and silence of the validation layers
 * (synchronization validation included) over all of it. `test_vulkan` with TSR_BENCH=1 also prints speeds. */
#include "vulkan/internal.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---------------------------------------------------------------- helpers */

#define OK(call)                                                                                   \
    do {                                                                                           \
        tsr_status status_ = (call);                                                               \
        cr_assert(status_ == TSR_OK, "%s: %d, %s", #call, status_, tsr_last_error());              \
    } while (0)

static int said; /* validation messages, also those after the device is gone */

static void on_log(void *user, tsr_log_level level, const char *line) {
    (void)user;
    if (level == TSR_LOG_ERROR) {
        said++;
        fprintf(stderr, "%s\n", line);
    }
}

/* With validation where it is installed; skips the test where there is no Vulkan at all. */
static tsr_vk *make(bool no_import) {
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
    return vk;
}

static void drop(tsr_vk *vk) {
    cr_assert_eq(tsr_vk_validation_messages(vk), 0);
    cr_assert_eq(vk->used - VK_BATCHES * vk->batch[0].upload.taken - vk->dither.taken - vk->readback[0].b.taken - vk->readback[1].b.taken, 0);
    tsr_vk_destroy(&vk);
    cr_assert_null(vk);
    cr_assert_eq(said, 0, "validation has something to say");
}

static uint64_t seed = 1;
static uint32_t dice(uint32_t n) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % n;
}
static float noise(void) {
    return (float)dice(1 << 24) * (2.4f / (1 << 24)) - 1.2f;
}

static size_t pages(size_t bytes) {
    return tsr_align(bytes, 4096);
}

/* The numbers of a frame as they are: RGB_F32. */
static const float *read_frame(tsr_vk *vk, tsr_vk_frames *f, int frame) {
    size_t bytes;
    OK(tsr_vk_resolve(vk, f, frame, 0, TSR_PIXELS_RGB_F32, false));
    OK(tsr_vk_submit(vk));
    const float *p = tsr_vk_pixels(vk, &bytes);
    cr_assert(p && bytes == (size_t)f->width * (size_t)f->height * 12);
    return p;
}

/* A frame holding these f32 numbers exactly, through a slab of its own (to be destroyed by the caller). */
static tsr_vk_slab *fill_frame(tsr_vk *vk, tsr_vk_frames *f, const float *v, void **memory) {
    size_t bytes = (size_t)f->width * (size_t)f->height * 12;
    tsr_vk_slab *s;
    *memory = tsr_mem_alloc(pages(bytes));
    memcpy(*memory, v, bytes);
    OK(tsr_vk_slab_host(vk, *memory, pages(bytes), &s, NULL));
    OK(tsr_vk_blend_tile(vk, &(tsr_vk_blend){.slab = s, .dtype = TSR_F32, .width = f->width, .height = f->height, .frames = f, .first = true}));
    return s;
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

/* Random tiles over frames of any size; the first of each frame covers it only in part. Slots have three frames. */
static scene make_scene(tsr_dtype slot, tsr_dtype frame) {
    scene s = {.width = 1 + (int)dice(150), .height = 1 + (int)dice(90), .tiles = 9, .frames = 2, .slot = slot, .frame = frame};
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
        tsr_vk_blend b = {.slab = slab, .slot_at = t->at, .dtype = s->slot, .slot_frame = 1, .x = t->x, .y = t->y, .width = t->w, .height = t->h,
            .weight_x = t->wx, .weight_y = t->wy, .frames = f, .frame = t->frame, .first = i < s->frames};
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
    /* f32: a fused multiply-add more or less; f16: with it the rounding of a sum may fall to the other side */
    float most = s->frame == TSR_F16 ? 0.004f : 1e-6f;
    for (size_t i = 0; i < n; i++)
        cr_assert(fabsf(got[i] - want[i]) <= most, "%dx%d, %s into %s, number %zu: %.9g, expected %.9g", s->width, s->height,
            tsr_dtype_name(s->slot), tsr_dtype_name(s->frame), i, (double)got[i], (double)want[i]);
}

Test(blend, equals_c_and_copies_equal_imports) {
    static const tsr_dtype types[] = {TSR_F32, TSR_F16};
    tsr_vk *vk = make(false), *copying = make(true);
    for (int k = 0; k < 24; k++) {
        bool imported, copied;
        scene s = make_scene(types[k & 1], types[k >> 1 & 1]);
        float *want = blend_in_c(&s), *a = blend_on_device(vk, &s, k & 4, &imported), *b = blend_on_device(copying, &s, false, &copied);
        compare(&s, a, want);
        cr_assert(!memcmp(a, b, (size_t)s.width * (size_t)s.height * 12 * (size_t)s.frames), "copied tiles differ from imported ones");
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

/* A plane of 130 MiB in f32: more than lavapipe binds at once. */
Test(blend, of_planes_beyond_a_binding) {
    tsr_vk *vk = make(false);
    int w = 6000, h = 5700;
    size_t plane = (size_t)w * (size_t)h, bytes = pages(plane * 6);
    uint16_t *slab = tsr_mem_alloc(bytes);
    for (size_t i = 0; i < plane * 3; i++)
        slab[i] = (uint16_t)(0x2c00 + (i * 2654435761u >> 20) % 0x1000); /* 1/16 to 1 */
    tsr_vk_slab *s;
    tsr_vk_frames *f;
    OK(tsr_vk_slab_host(vk, slab, bytes, &s, NULL));
    OK(tsr_vk_frames_create(vk, w, h, TSR_F32, 1, &f));
    OK(tsr_vk_blend_tile(vk, &(tsr_vk_blend){.slab = s, .dtype = TSR_F16, .width = w, .height = h, .frames = f, .first = true}));
    OK(tsr_vk_resolve(vk, f, 0, 0, TSR_PIXELS_RGB16, false));
    OK(tsr_vk_submit(vk));
    size_t got_bytes;
    const uint16_t *got = tsr_vk_pixels(vk, &got_bytes);
    cr_assert_eq(got_bytes, plane * 6);
    for (size_t i = 0; i < plane * 3; i += 1 + i % 7) {
        float v = (tsr_f16_to_f32(slab[i % 3 * plane + i / 3]) * 0.5f + 0.5f) * 65535;
        cr_assert_eq(got[i], (uint16_t)rintf(v), "number %zu", i);
    }
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
    tsr_vk_blend good = {.slab = s, .dtype = TSR_F32, .x = 4, .y = 4, .width = 16, .height = 16, .frames = f, .first = true}, b;
    OK(tsr_vk_blend_tile(vk, &good));
#define REFUSED(change)                                                                            \
    do {                                                                                           \
        b = good;                                                                                  \
        change;                                                                                    \
        cr_assert_eq(tsr_vk_blend_tile(vk, &b), TSR_ERR_ARGUMENT, #change);                        \
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
            cr_assert(fabs(sum / (double)plane - (double)level[c]) < 2.5e-4, "mean %.6f of %.6f", sum / (double)plane, (double)level[c]);
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
    /* blue: of any 8x8 block, about as many points are below a level as of the whole (white noise: 16 +- 3.5) */
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
    tsr_vk_blend b = {.slab = s, .dtype = TSR_F32, .width = 8, .height = 8, .frames = f, .first = true, .wait = lane[0], .wait_value = 3};
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
        OK(tsr_vk_blend_tile(vk, &(tsr_vk_blend){.slab = s, .dtype = TSR_F32, .width = 2, .height = 2, .frames = f, .first = !i}));
    for (int i = 0; i < 5; i++) /* more resolves than buffers in one batch */
        OK(tsr_vk_resolve(vk, f, 0, 0, TSR_PIXELS_RGB8, true));
    cr_assert_eq(read_frame(vk, f, 0)[11], 3000);
    tsr_vk_slab_destroy(vk, &s);
    tsr_vk_frames_destroy(vk, &f);
    tsr_mem_free(slot);
    drop(vk);
}

/* ---------------------------------------------------------------- sharing */

static int open_fds(void) {
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

/* Memory another Vulkan device exports, blended here: what CUDA's will be. */
Test(sharing, blends_memory_exported_by_another_device) {
    tsr_vk *vk = make(false), *other = make(false);
    if (!vk->memory_import || !other->memory_export)
        cr_skip_test("memory is not shared by fd here");
    int before = open_fds(), w = 24, h = 9;
    size_t n = (size_t)(w * h * 3), export_bytes;
    tsr_vk_slab *theirs, *ours;
    tsr_vk_frames *f;
    tsr_vk_handle handle;
    void *mapped;
    OK(tsr_vk_slab_export(other, 3 * n * 2, &theirs, &handle, &export_bytes));
    cr_assert_geq(export_bytes, 3 * n * 2);
    cr_assert(other->d.vkMapMemory(other->device, theirs->b.memory, 0, VK_WHOLE_SIZE, 0, &mapped) == VK_SUCCESS);
    for (size_t i = 0; i < 3 * n; i++)
        ((uint16_t *)mapped)[i] = tsr_f32_to_f16((float)(i % 509) / 64);
    OK(tsr_vk_slab_fd(vk, handle, export_bytes, &ours));
    OK(tsr_vk_frames_create(vk, w, h, TSR_F16, 1, &f));
    for (int i = 0; i < 2; i++)
        OK(tsr_vk_blend_tile(vk, &(tsr_vk_blend){.slab = ours, .dtype = TSR_F16, .slot_frame = i + 1, .width = w, .height = h, .frames = f, .first = !i}));
    const float *p = read_frame(vk, f, 0);
    for (size_t i = 0; i < n; i++)
        cr_assert_float_eq(p[i], (float)((n + i) % 509) / 64 + (float)((2 * n + i) % 509) / 64, 0.008f);
    tsr_vk_slab_destroy(other, &theirs); /* the importer's memory lives on */
    OK(tsr_vk_blend_tile(vk, &(tsr_vk_blend){.slab = ours, .dtype = TSR_F16, .width = w, .height = h, .frames = f, .first = true}));
    cr_assert_eq(read_frame(vk, f, 0)[n - 1], tsr_f16_to_f32(tsr_f32_to_f16((float)((n - 1) % 509) / 64)));
    tsr_vk_slab_destroy(vk, &ours);
    tsr_vk_frames_destroy(vk, &f);
    cr_assert_eq(open_fds(), before);
    drop(vk);
    drop(other);
}

Test(sharing, a_bad_fd_is_refused_and_closed_once) {
    tsr_vk *vk = make(false);
    if (!vk->memory_import || !tsr_vk_is_software(vk))
        cr_skip_test("what drivers make of a stray fd is only known of lavapipe");
    int before = open_fds(), plain = memfd_create("plain", MFD_CLOEXEC);
    tsr_vk_slab *s;
    cr_assert(!ftruncate(plain, 65536));
    cr_assert_eq(tsr_vk_slab_fd(vk, plain, 65536, &s), TSR_ERR_DEVICE);
    cr_assert_null(s);
    cr_assert_eq(fcntl(plain, F_GETFD), -1);
    cr_assert_eq(tsr_vk_slab_fd(vk, -1, 65536, &s), TSR_ERR_ARGUMENT);
    cr_assert_eq(tsr_vk_slab_fd(vk, memfd_create("empty", 0), 0, &s), TSR_ERR_ARGUMENT);
    cr_assert_eq(open_fds(), before);
    drop(vk);
}

Test(sharing, timelines_are_exported_or_say_why_not) {
    tsr_vk *vk = make(false);
    tsr_vk_timeline *t = NULL;
    tsr_vk_handle handle = TSR_VK_NO_HANDLE;
    tsr_status status = tsr_vk_timeline_create(vk, true, &t);
    cr_assert_eq(status, vk->timeline_export ? TSR_OK : TSR_ERR_UNSUPPORTED);
    if (t) {
        OK(tsr_vk_timeline_export(vk, t, &handle));
        close(handle);
        tsr_vk_timeline_destroy(vk, &t);
        OK(tsr_vk_timeline_export(vk, tsr_vk_progress(vk), &handle));
        close(handle);
    } else {
        cr_assert(strstr(tsr_last_error(), "timeline"), "%s", tsr_last_error());
        cr_assert_eq(tsr_vk_timeline_export(vk, tsr_vk_progress(vk), &handle), TSR_ERR_UNSUPPORTED);
        cr_assert_eq(handle, TSR_VK_NO_HANDLE);
    }
    drop(vk);
}

/* ---------------------------------------------------------------- devices */

Test(device, is_chosen_by_rule) {
    tsr_vk *vk = make(false), *same = NULL;
    uint8_t uuid[16] = {0};
    tsr_vk_params params = {.index = vk->index};
    OK(tsr_vk_create(&same, &params));
    cr_assert_str_eq(tsr_vk_device_name(same), tsr_vk_device_name(vk));
    tsr_vk_destroy(&same);
    params = (tsr_vk_params){.index = -1, .uuid = vk->id.deviceUUID};
    OK(tsr_vk_create(&same, &params));
    cr_assert(tsr_vk_is_uuid(same, vk->id.deviceUUID));
    cr_assert_not(tsr_vk_is_uuid(same, uuid));
    tsr_vk_destroy(&same);
    params.uuid = uuid; /* nobody's: the rule goes on */
    OK(tsr_vk_create(&same, &params));
    tsr_vk_destroy(&same);
    params.index = 31;
    cr_assert_eq(tsr_vk_create(&same, &params), TSR_ERR_ARGUMENT);
    cr_assert_null(same);
    drop(vk);
}

static int lines;
static void on_line(void *user, const char *key, const char *value) {
    (void)user;
    cr_assert(*key && *value);
    lines++;
}

Test(device, reports) {
    tsr_vk *vk = make(false);
    tsr_vk_report(vk, on_line, NULL);
    cr_assert_geq(lines, 7);
    drop(vk);
}

Test(device, comes_and_goes_without_leaking_fds) {
    tsr_vk_params params = TSR_VK_PARAMS_DEFAULT;
    tsr_vk *vk = make(false);
    drop(vk);
    int before = 0;
    for (int i = 0; i < 50; i++) {
        OK(tsr_vk_create(&vk, &params));
        tsr_vk_frames *f;
        tsr_vk_slab *s;
        void *memory;
        float v[12] = {0};
        OK(tsr_vk_frames_create(vk, 2, 2, TSR_F32, 1, &f));
        s = fill_frame(vk, f, v, &memory);
        OK(tsr_vk_submit(vk));
        tsr_vk_slab_destroy(vk, &s);
        tsr_vk_frames_destroy(vk, &f);
        tsr_mem_free(memory);
        tsr_vk_destroy(&vk);
        if (i == 1)
            before = open_fds();
    }
    cr_assert_eq(open_fds(), before);
}

/* ---------------------------------------------------------------- failing calls */

/* Everything once; on failure, whatever was made is destroyed. */
static tsr_status use_all(void) {
    tsr_status status;
    tsr_vk *vk = NULL;
    tsr_vk_slab *s = NULL, *shared = NULL, *back = NULL;
    tsr_vk_frames *f = NULL;
    tsr_vk_timeline *t = NULL;
    tsr_vk_params params = {.index = -1, .validation = true};
    void *p = tsr_mem_alloc(4096);
    memset(p, 0, 4096);
    TSR_TRY(tsr_vk_create(&vk, &params));
    TSR_TRY(tsr_vk_timeline_create(vk, false, &t));
    TSR_TRY(tsr_vk_slab_host(vk, p, 4096, &s, NULL));
    if (vk->memory_export && vk->memory_import) {
        tsr_vk_handle handle;
        size_t bytes;
        TSR_TRY(tsr_vk_slab_export(vk, 4096, &shared, &handle, &bytes));
        TSR_TRY(tsr_vk_slab_fd(vk, handle, bytes, &back));
    }
    TSR_TRY(tsr_vk_frames_create(vk, 8, 8, TSR_F16, 2, &f));
    for (int i = 0; i < 2; i++) {
        TSR_TRY(tsr_vk_blend_tile(vk, &(tsr_vk_blend){.slab = s, .dtype = TSR_F32, .width = 8, .height = 8, .frames = f, .first = true}));
        TSR_TRY(tsr_vk_resolve(vk, f, 0, 0, TSR_PIXELS_RGB8, true));
        TSR_TRY(tsr_vk_submit(vk));
    }
    uint64_t value;
    TSR_TRY(tsr_vk_timeline_signal(vk, t, 1));
    TSR_TRY(tsr_vk_timeline_value(vk, t, &value));
error:
    if (vk) {
        tsr_vk_timeline_destroy(vk, &t);
        tsr_vk_frames_destroy(vk, &f);
        tsr_vk_slab_destroy(vk, &back);
        tsr_vk_slab_destroy(vk, &shared);
        tsr_vk_slab_destroy(vk, &s);
    }
    tsr_vk_destroy(&vk);
    tsr_mem_free(p);
    return status;
}

Test(failing, at_every_call_is_one_clear_line_and_no_leak) {
    drop(make(false));
    OK(use_all());
    int before = open_fds(), sites = 0, survived = 0;
    for (bool over = false; !over; sites++) {
        tsr_vk_fail_at(sites);
        tsr_status status = use_all();
        over = tsr_vk_fail_at(-1) >= 0; /* the call that was to fail never came */
        if (over)
            break;
        survived += status == TSR_OK; /* importing pages: copied instead */
        cr_assert(status == TSR_OK || status == TSR_ERR_DEVICE, "site %d: %s", sites, tsr_last_error());
        if (status != TSR_OK)
            cr_assert(strstr(tsr_last_error(), "lost in vk"), "%s", tsr_last_error());
        cr_assert_eq(open_fds(), before, "site %d", sites);
        cr_assert_eq(said, 0, "site %d", sites);
    }
    cr_assert_gt(sites, 60);
    cr_assert_leq(survived, 4);
}
