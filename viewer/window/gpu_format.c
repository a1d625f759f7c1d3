/* Which of a surface's formats is drawn in. */
#include "gpu.h"

bool gpu_choose_format(const VkSurfaceFormatKHR *have, uint32_t n, VkSurfaceFormatKHR *out, bool *deep) {
    static const struct {
        VkFormat format;
        bool deep;
    } wanted[] = {
        {VK_FORMAT_A2B10G10R10_UNORM_PACK32, true},
        {VK_FORMAT_A2R10G10B10_UNORM_PACK32, true},
        {VK_FORMAT_B8G8R8A8_UNORM, false},
        {VK_FORMAT_R8G8B8A8_UNORM, false},
    };
    for (size_t w = 0; w < sizeof wanted / sizeof *wanted; w++)
        for (uint32_t i = 0; i < n; i++)
            if (have[i].format == wanted[w].format && have[i].colorSpace == VK_COLOR_SPACE_SRGB_NONLINEAR_KHR) {
                *out = have[i];
                *deep = wanted[w].deep;
                return true;
            }
    return false;
}
