/* Which of a surface's formats the window is drawn in. */
#include "viewer/window/gpu.h"

#include <criterion/criterion.h>

#define TEN VK_FORMAT_A2B10G10R10_UNORM_PACK32
#define TEN_BGR VK_FORMAT_A2R10G10B10_UNORM_PACK32
#define EIGHT VK_FORMAT_B8G8R8A8_UNORM
#define EIGHT_RGB VK_FORMAT_R8G8B8A8_UNORM
#define CONVERTS VK_FORMAT_B8G8R8A8_SRGB
#define SRGB VK_COLOR_SPACE_SRGB_NONLINEAR_KHR
#define HDR VK_COLOR_SPACE_HDR10_ST2084_EXT

Test(surface, more_bits_before_fewer_and_srgb_only) {
    static const struct {
        VkSurfaceFormatKHR have[4];
        int chosen; /* -1: none */
        bool deep;
    } cases[] = {
        {{{CONVERTS, SRGB}, {EIGHT, SRGB}, {TEN, SRGB}, {EIGHT_RGB, SRGB}}, 2, true},
        {{{EIGHT, SRGB}, {TEN_BGR, SRGB}, {CONVERTS, SRGB}, {TEN, SRGB}}, 3, true},
        {{{EIGHT_RGB, SRGB}, {TEN_BGR, SRGB}, {EIGHT, SRGB}, {TEN, HDR}}, 1, true},
        {{{CONVERTS, SRGB}, {TEN, HDR}, {EIGHT_RGB, SRGB}, {EIGHT, SRGB}}, 3, false},
        {{{TEN, HDR}, {CONVERTS, SRGB}, {EIGHT, HDR}, {EIGHT_RGB, SRGB}}, 3, false},
        {{{TEN, HDR}, {CONVERTS, SRGB}, {EIGHT, HDR}, {VK_FORMAT_R16G16B16A16_SFLOAT, SRGB}}, -1, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        VkSurfaceFormatKHR out = {0};
        bool deep = false, found = gpu_choose_format(cases[i].have, 4, &out, &deep);
        cr_assert_eq(found, cases[i].chosen >= 0, "case %zu", i);
        if (!found)
            continue;
        cr_assert_eq(out.format, cases[i].have[cases[i].chosen].format, "case %zu: format %d", i, (int)out.format);
        cr_assert_eq(out.colorSpace, SRGB);
        cr_assert_eq(deep, cases[i].deep, "case %zu", i);
    }
}
