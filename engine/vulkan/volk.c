/* The loader: Vulkan is opened at run time, so the program starts where there is none. The engine hides its own; the
 * window has another. */
#ifdef _WIN32
#define VK_USE_PLATFORM_WIN32_KHR
#endif
#define VOLK_IMPLEMENTATION
#include <volk.h>
