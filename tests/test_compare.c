/* PSNR, SSIM, the worst frame and the worst block: of differences that are known, and of the reference's SSIM. */
#include "temp.h"

#include "formats/tensor_file.h"

#include <tessera/compare.h>
#include <tessera/media.h>

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ok(call) cr_assert((call) == TSR_OK, "%s", tsr_last_error())
#define fails(call, status, text)                                                                                      \
    do {                                                                                                               \
        cr_assert((call) == (status), "not refused as it should be: %s", tsr_last_error());                            \
        cr_assert(strstr(tsr_last_error(), text), "%s", tsr_last_error());                                             \
    } while (0)
#define near(a, b, eps) cr_expect(fabs((a) - (b)) <= (eps), #a " is %.9g, expected %.9g", (double)(a), (double)(b))

enum { W = 40, H = 24, F = 3, PLANE = W * H };

/* Smooth, with detail, the same everywhere: [3][F][H][W]. */
static float *scene(void) {
    float *v = malloc(3 * F * PLANE * sizeof *v);
    for (int c = 0; c < 3; c++)
        for (int f = 0; f < F; f++)
            for (int y = 0; y < H; y++)
                for (int x = 0; x < W; x++)
                    v[((c * F + f) * H + y) * W + x] =
                        (float)(0.6 * sin(0.3 * x + 0.2 * y * (c + 1) + 0.1 * f) + 0.2 * ((x * 7 + y * 5) % 3 - 1));
    return v;
}

static void save(const char *name, float *v, int frames) {
    tsr_tensor t = {.name = "video", .dtype = TSR_F32, .ndim = 4, .dim = {3, frames, H, W}, .data = v};
    t.count = (size_t)(3 * frames * PLANE);
    t.bytes = t.count * sizeof *v;
    ok(tsr_npy_write(temp_path(name), &t));
}

static tsr_comparison compare(const char *a, const char *b, const tsr_compare_params *p) {
    tsr_comparison c;
    const tsr_compare_params usual = TSR_COMPARE_PARAMS_DEFAULT;
    ok(tsr_compare(temp_path(a), temp_path(b), p ? p : &usual, &c));
    return c;
}

Test(compare, equal_is_infinite) {
    float *v = scene();
    save("a.npy", v, F);
    tsr_comparison c = compare("a.npy", "a.npy", NULL);
    cr_expect(isinf(c.psnr) && c.ssim == 1 && c.frames == F && c.width == W && c.height == H && c.largest == 0);
    free(v);
}

/* An offset in one frame, a larger one in one block of another. */
Test(compare, worst_frame_and_worst_block) {
    float *v = scene();
    save("a.npy", v, F);
    for (int c = 0; c < 3; c++) {
        for (int i = 0; i < PLANE; i++)
            v[(c * F + 1) * PLANE + i] += 0.1f;
        for (int y = 16; y < 24; y++)
            for (int x = 32; x < 40; x++)
                v[((c * F + 2) * H + y) * W + x] -= 0.4f;
    }
    save("b.npy", v, F);
    tsr_compare_params p = TSR_COMPARE_PARAMS_DEFAULT;
    p.block = 8;
    tsr_comparison c = compare("a.npy", "b.npy", &p);
    double block = 0.16 * 64 / PLANE; /* mean squared error of frame 2 */
    cr_expect(c.worst.frame == 2 && c.block.frame == 2);
    near(c.worst.psnr, 10 * log10(4 / block), 1e-4);
    near(c.block.block_psnr, 10 * log10(4 / 0.16), 1e-4);
    cr_expect(c.block.block_x == 32 && c.block.block_y == 16, "%d %d", c.block.block_x, c.block.block_y);
    near(c.psnr, 10 * log10(4 / ((block + 0.01) / 3)), 1e-4);
    near(c.largest, 0.4, 1e-6);
    cr_expect(c.ssim < 1 && c.ssim > 0.8);
    p.first = 1;
    p.end = 2;
    c = compare("a.npy", "b.npy", &p);
    cr_expect(c.frames == 1 && c.worst.frame == 1);
    near(c.psnr, 26.0206, 1e-4);
    free(v);
}

/* Eight-bit codes one apart are 48.13 dB, as everywhere. */
Test(compare, eight_bits_have_the_usual_range) {
    static uint8_t rgb[PLANE * 3];
    for (int k = 0; k < 2; k++) {
        tsr_writer *w;
        tsr_writer_params p = TSR_WRITER_PARAMS_DEFAULT;
        for (int i = 0; i < PLANE * 3; i++)
            rgb[i] = (uint8_t)(100 + i % 50 + k);
        p.path = temp_path(k ? "b.png" : "a.png");
        p.width = W;
        p.height = H;
        ok(tsr_writer_open(&w, &p));
        ok(tsr_writer_frame(w, &(tsr_frame){0, W, H, TSR_PIXELS_RGB8, rgb, sizeof rgb}));
        ok(tsr_writer_finish(w));
        tsr_writer_close(&w);
    }
    near(compare("a.png", "b.png", NULL).psnr, 20 * log10(255), 1e-3);
}

/* What cannot be shown does not count against a picture; between floats it does. */
Test(compare, pictures_clamp) {
    float *v = malloc(3 * PLANE * sizeof *v);
    static uint8_t white[PLANE * 3];
    tsr_writer *w;
    tsr_writer_params p = TSR_WRITER_PARAMS_DEFAULT;
    memset(white, 255, sizeof white);
    for (int i = 0; i < 3 * PLANE; i++)
        v[i] = 1.25f;
    save("over.npy", v, 1);
    for (int i = 0; i < 3 * PLANE; i++)
        v[i] = 1;
    save("white.npy", v, 1);
    p.path = temp_path("white.png");
    p.width = W;
    p.height = H;
    ok(tsr_writer_open(&w, &p));
    ok(tsr_writer_frame(w, &(tsr_frame){0, W, H, TSR_PIXELS_RGB8, white, sizeof white}));
    ok(tsr_writer_finish(w));
    tsr_writer_close(&w);
    cr_expect(isinf(compare("over.npy", "white.png", NULL).psnr));
    near(compare("over.npy", "white.npy", NULL).psnr, 10 * log10(4 / 0.0625), 1e-6);
    free(v);
}

/* The same by the definition: a window of weights laid over every place where it fits. */
static double plain_ssim(const float *a, const float *b) {
    double weight[11][11], sum = 0, total = 0;
    for (int i = 0; i < 11; i++)
        for (int j = 0; j < 11; j++)
            sum += weight[i][j] = exp(-((i - 5) * (i - 5) + (j - 5) * (j - 5)) / (2 * 1.5 * 1.5));
    for (int y = 0; y + 11 <= H; y++)
        for (int x = 0; x + 11 <= W; x++)
            for (int c = 0; c < 3; c++) {
                double m[5] = {0};
                for (int i = 0; i < 11; i++)
                    for (int j = 0; j < 11; j++) {
                        double k = weight[i][j] / sum;
                        double p = (double)a[3 * ((y + i) * W + x + j) + c],
                               q = (double)b[3 * ((y + i) * W + x + j) + c];
                        m[0] += k * p, m[1] += k * q, m[2] += k * p * p, m[3] += k * q * q, m[4] += k * p * q;
                    }
                double c1 = 0.02 * 0.02, c2 = 0.06 * 0.06;
                total += (2 * m[0] * m[1] + c1) * (2 * (m[4] - m[0] * m[1]) + c2) /
                         ((m[0] * m[0] + m[1] * m[1] + c1) * (m[2] - m[0] * m[0] + m[3] - m[1] * m[1] + c2));
            }
    return total / (3.0 * (H - 10) * (W - 10));
}

Test(compare, ssim_is_the_usual_one) {
    float *v = scene(), *a = malloc(3 * PLANE * sizeof *a), *b = malloc(3 * PLANE * sizeof *b);
    for (int i = 0; i < 3 * PLANE; i++) {
        a[i] = v[i];
        b[i] = v[i] * 0.9f + 0.2f * (float)sin(i * 12.9898);
    }
    tsr_difference d;
    ok(tsr_compare_frames(a, b, W, H, 16, &d));
    near(d.ssim, plain_ssim(a, b), 1e-5);
    cr_expect(d.ssim > 0.3 && d.ssim < 0.98, "%f", d.ssim);
    ok(tsr_compare_frames(a, b, 3, 2, 16, &d)); /* smaller than the window */
    cr_expect(isfinite(d.ssim) && d.ssim < 1);
    ok(tsr_compare_frames(a, b, 1, 1, 16, &d));
    cr_expect(isfinite(d.ssim));
    free(v);
    free(a);
    free(b);
}

Test(compare, the_difference_picture_shows_where) {
    float *v = scene(), rgb[3 * PLANE];
    save("a.npy", v, 1);
    for (int c = 0; c < 3; c++)
        v[(c * H + 13) * W + 21] += 0.11f;
    save("b.npy", v, 1);
    tsr_compare_params p = TSR_COMPARE_PARAMS_DEFAULT;
    tsr_reader *r;
    bool got;
    p.block = 8;
    p.difference = temp_path("diff.png");
    tsr_comparison c = compare("a.npy", "b.npy", &p);
    cr_expect(c.gain == 16, "%g", c.gain);
    ok(tsr_reader_open(&r, temp_path("diff.png")));
    ok(tsr_reader_frame(r, rgb, &got));
    near((rgb[3 * (13 * W + 21)] + 1) * 127.5f, 0.11 * 16 * 127.5, 1);
    cr_expect(rgb[3 * (12 * W + 20)] == -1);
    cr_expect(rgb[3 * (13 * W + 15)] == 1 && rgb[3 * (13 * W + 15) + 1] == -1); /* the frame around the block */
    tsr_reader_close(&r);
    fails(tsr_compare(temp_path("a.npy"), temp_path("b.npy"), &p, &c), TSR_ERR_IO, "output exists");
    free(v);
}

Test(compare, refusals) {
    float *v = scene();
    tsr_comparison c;
    tsr_compare_params p = TSR_COMPARE_PARAMS_DEFAULT;
    save("three.npy", v, 3);
    save("two.npy", v, 2);
    fails(tsr_compare(temp_path("three.npy"), temp_path("two.npy"), &p, &c), TSR_ERR_ARGUMENT, "two.npy has 2 frames");
    p.end = 2;
    cr_expect(tsr_compare(temp_path("three.npy"), temp_path("three.npy"), &p, &c) == TSR_OK && c.frames == 2);
    p.end = 4;
    fails(tsr_compare(temp_path("three.npy"), temp_path("three.npy"), &p, &c), TSR_ERR_ARGUMENT, "has 3 frames only");
    p.end = 0;
    p.first = 3;
    fails(tsr_compare(temp_path("three.npy"), temp_path("three.npy"), &p, &c), TSR_ERR_ARGUMENT, "has 3 frames only");
    p.first = 0;
    tsr_tensor t = {.name = "",
        .dtype = TSR_F32,
        .ndim = 4,
        .dim = {3, 1, W, H},
        .data = v,
        .count = 3 * PLANE,
        .bytes = 12 * PLANE};
    ok(tsr_npy_write(temp_path("turned.npy"), &t));
    fails(tsr_compare(temp_path("three.npy"), temp_path("turned.npy"), &p, &c), TSR_ERR_ARGUMENT,
        "frames differ in size");
    fails(tsr_compare(temp_path("three.npy"), temp_path("gone.npy"), &p, &c), TSR_ERR_IO, "gone.npy");
    free(v);
}
