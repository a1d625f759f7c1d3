/* What resolve.comp does, on the host: for frames that were changed after they were resolved to floats. */
#include "vulkan/internal.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

static float pattern[VK_DITHER * VK_DITHER];
static pthread_once_t made = PTHREAD_ONCE_INIT;

static void make_pattern(void) {
    tsr_vk_dither_pattern(pattern);
}

static float unit(float x) { /* NaN becomes 0 */
    float v = x * 0.5f + 0.5f;
    return v > 0 ? fminf(v, 1) : 0;
}

static float threshold(int32_t x, int32_t y) {
    return pattern[(y & (VK_DITHER - 1)) * VK_DITHER + (x & (VK_DITHER - 1))];
}

void tsr_vk_pixels_host(
    const float *rgb, int width, int height, int64_t index, tsr_pixels pixels, bool dither, void *out) {
    static const int32_t step_x[3] = {0, 23, 47}, step_y[3] = {0, 41, 17}; /* of the channels, as in resolve.comp */
    size_t plane = (size_t)width * (size_t)height;
    int32_t walk_x, walk_y;
    if (pixels == TSR_PIXELS_RGB_F32) {
        memcpy(out, rgb, 3 * plane * sizeof *rgb);
        return;
    }
    pthread_once(&made, make_pattern);
    tsr_vk_dither_walk(index, &walk_x, &walk_y);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < 3; c++) {
                size_t p = (size_t)y * (size_t)width + (size_t)x;
                float v = unit(rgb[(size_t)c * plane + p]);
                if (pixels == TSR_PIXELS_RGB16)
                    ((uint16_t *)out)[3 * p + (size_t)c] = (uint16_t)rintf(v * 65535);
                else if (dither)
                    ((uint8_t *)out)[3 * p + (size_t)c] =
                        (uint8_t)floorf(v * 255 + threshold(walk_x + x + step_x[c], walk_y + y + step_y[c]));
                else
                    ((uint8_t *)out)[3 * p + (size_t)c] = (uint8_t)rintf(v * 255);
            }
}
