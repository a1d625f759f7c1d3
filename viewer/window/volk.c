/* The loader, for the window: the engine has its own, hidden. */
#ifdef _WIN32
#define VK_USE_PLATFORM_WIN32_KHR
#endif
#define VOLK_IMPLEMENTATION
#include <volk.h>
