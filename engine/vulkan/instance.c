/* From nothing to a physical device: loader, instance, validation layer, the choice of a device. */
#include "vulkan/internal.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- failing */

static _Atomic int64_t fail_at = -1;

int64_t tsr_vk_fail_at(int64_t n) {
    return atomic_exchange(&fail_at, n);
}

bool tsr_vk_failing(void) {
    return atomic_load(&fail_at) >= 0 && atomic_fetch_sub(&fail_at, 1) == 0;
}

static const char *result_name(VkResult r) {
    switch (r) {
#define NAME(x)                                                                                                        \
    case x:                                                                                                            \
        return #x
        NAME(VK_ERROR_OUT_OF_HOST_MEMORY);
        NAME(VK_ERROR_OUT_OF_DEVICE_MEMORY);
        NAME(VK_ERROR_INITIALIZATION_FAILED);
        NAME(VK_ERROR_DEVICE_LOST);
        NAME(VK_ERROR_MEMORY_MAP_FAILED);
        NAME(VK_ERROR_LAYER_NOT_PRESENT);
        NAME(VK_ERROR_EXTENSION_NOT_PRESENT);
        NAME(VK_ERROR_FEATURE_NOT_PRESENT);
        NAME(VK_ERROR_INCOMPATIBLE_DRIVER);
        NAME(VK_ERROR_TOO_MANY_OBJECTS);
        NAME(VK_ERROR_OUT_OF_POOL_MEMORY);
        NAME(VK_ERROR_FRAGMENTED_POOL);
        NAME(VK_ERROR_INVALID_EXTERNAL_HANDLE);
#undef NAME
    default:
        return "VK_ERROR";
    }
}

tsr_status tsr_vk_error(VkResult result, const char *call, const char *file, int line) {
    const char *base = strrchr(file, '/');
    base = base ? base + 1 : file;
    tsr_log(TSR_LOG_DEBUG, "vulkan: %s: %s (%d) at %s:%d", call, result_name(result), result, base, line);
    int name = (int)strcspn(call, "(");
    for (const char *s = call; s < call + name; s++) /* "vk->d.vkCreateBuffer" */
        if (!strncmp(s, "vk", 2) && s[2] >= 'A' && s[2] <= 'Z') {
            name -= (int)(s - call);
            call = s;
            break;
        }
    switch (result) {
    case VK_ERROR_DEVICE_LOST:
        return tsr_fail(TSR_ERR_DEVICE,
            "vulkan: the device was lost in %.*s (%s:%d); its driver crashed or was reset, start "
            "again",
            name, call, base, line);
    case VK_ERROR_INCOMPATIBLE_DRIVER:
        return tsr_fail(
            TSR_ERR_DEVICE, "vulkan: no driver; install your GPU's, or mesa-vulkan-drivers for one in software");
    case VK_ERROR_OUT_OF_HOST_MEMORY:
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
        return tsr_fail(TSR_ERR_MEMORY, "vulkan: %.*s: %s (%s:%d); try a smaller budget or smaller tiles", name, call,
            result_name(result), base, line);
    default:
        return tsr_fail(
            TSR_ERR_DEVICE, "vulkan: %.*s: %s %d (%s:%d)", name, call, result_name(result), result, base, line);
    }
}

/* ---------------------------------------------------------------- instance */

static VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
    VkDebugUtilsMessageTypeFlagsEXT types, const VkDebugUtilsMessengerCallbackDataEXT *data, void *user) {
    (void)severity;
    (void)types;
    tsr_vk *vk = user;
    atomic_fetch_add(&vk->messages, 1);
    tsr_log(TSR_LOG_ERROR, "vulkan validation: %s", data->pMessage ? data->pMessage : "(no text)");
    return VK_FALSE;
}

enum { MOST_EXTENSIONS = 8 /* of the caller */ };

static const char validation_layer[] = "VK_LAYER_KHRONOS_validation";

static tsr_status need_layer(void) {
    tsr_status status = TSR_OK;
    uint32_t n = 0;
    VkLayerProperties *layers = NULL;
    bool found = false;
    VK(vkEnumerateInstanceLayerProperties(&n, NULL));
    layers = malloc((n ? n : 1) * sizeof *layers);
    if (!layers)
        return tsr_fail(TSR_ERR_MEMORY, "vulkan: no memory for a list of layers");
    VK(vkEnumerateInstanceLayerProperties(&n, layers));
    for (uint32_t i = 0; i < n; i++)
        found |= !strcmp(layers[i].layerName, validation_layer);
    if (!found)
        status = tsr_fail(TSR_ERR_UNSUPPORTED,
            "vulkan: %s is not installed; install vulkan-validationlayers, or go without "
            "validation",
            validation_layer);
error:
    free(layers);
    return status;
}

/* Volk's pointers are process-wide. Those of core functions are the loader's own and serve every
 * instance, so they are set once and other threads may read them; only an instance that brings
 * extensions (a window's) sets them again, to the same and its extensions'. */
static pthread_mutex_t volk_lock = PTHREAD_MUTEX_INITIALIZER;
static bool volk_ready, volk_loaded;

static tsr_status load_volk(void) {
    pthread_mutex_lock(&volk_lock);
    if (!volk_ready)
        volk_ready = volkInitialize() == VK_SUCCESS;
    bool ready = volk_ready;
    pthread_mutex_unlock(&volk_lock);
    if (!ready)
        return tsr_fail(TSR_ERR_DEVICE, "vulkan: no loader (libvulkan.so.1); install libvulkan1 "
                                        "and a driver, mesa-vulkan-drivers for one in software");
    if (volkGetInstanceVersion() < VK_API_VERSION_1_2)
        return tsr_fail(TSR_ERR_DEVICE, "vulkan: the loader knows Vulkan 1.1 only; install a newer libvulkan1");
    return TSR_OK;
}

tsr_status tsr_vk_instance_create(tsr_vk *vk, const tsr_vk_params *params) {
    tsr_status status;
    bool validation = params->validation;
    TSR_TRY(load_volk());
    if (validation)
        TSR_TRY(need_layer());
    const char *extensions[2 + MOST_EXTENSIONS] = {
        VK_EXT_DEBUG_UTILS_EXTENSION_NAME, VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME};
    uint32_t extension_count = validation ? 2 : 0;
    if (params->instance_extension_count > MOST_EXTENSIONS)
        return tsr_fail(TSR_ERR_ARGUMENT, "vulkan: %d instance extensions; at most %d",
            params->instance_extension_count, MOST_EXTENSIONS);
    for (int i = 0; i < params->instance_extension_count; i++)
        extensions[extension_count++] = params->instance_extensions[i];
    static const char *const layers[] = {validation_layer};
    static const VkValidationFeatureEnableEXT enable[] = {VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT};
    VkDebugUtilsMessengerCreateInfoEXT messenger = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity =
            VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
        /* not GENERAL: the loader reports there drivers that do not fit this machine */
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_TYPE_PERFORMANCE_BIT_EXT,
        .pfnUserCallback = on_message,
        .pUserData = vk,
    };
    VkValidationFeaturesEXT features = {
        .sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
        .pNext = &messenger, /* for messages of vkCreateInstance and vkDestroyInstance */
        .enabledValidationFeatureCount = 1,
        .pEnabledValidationFeatures = enable,
    };
    VkApplicationInfo app = {
        .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
        .pApplicationName = "tessera",
        .pEngineName = "tessera",
        .apiVersion = VK_API_VERSION_1_2,
    };
    VkInstanceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
        .pNext = validation ? &features : NULL,
        .pApplicationInfo = &app,
        .enabledLayerCount = validation ? 1 : 0,
        .ppEnabledLayerNames = layers,
        .enabledExtensionCount = extension_count,
        .ppEnabledExtensionNames = extensions,
    };
    VK(vkCreateInstance(&info, NULL, &vk->instance));
    pthread_mutex_lock(&volk_lock);
    if (!volk_loaded || params->instance_extension_count)
        volkLoadInstanceOnly(vk->instance);
    volk_loaded = true;
    pthread_mutex_unlock(&volk_lock);
    if (validation) {
        vk->create_messenger =
            (PFN_vkCreateDebugUtilsMessengerEXT)vkGetInstanceProcAddr(vk->instance, "vkCreateDebugUtilsMessengerEXT");
        vk->destroy_messenger =
            (PFN_vkDestroyDebugUtilsMessengerEXT)vkGetInstanceProcAddr(vk->instance, "vkDestroyDebugUtilsMessengerEXT");
        vk->set_name =
            (PFN_vkSetDebugUtilsObjectNameEXT)vkGetInstanceProcAddr(vk->instance, "vkSetDebugUtilsObjectNameEXT");
        VK(vk->create_messenger(vk->instance, &messenger, NULL, &vk->messenger));
    }
    return TSR_OK;
error:
    return status;
}

#ifdef __SANITIZE_ADDRESS__
#include <dlfcn.h>
#include <link.h>

static int pin(struct dl_phdr_info *info, size_t size, void *user) {
    (void)size;
    (void)user;
    if (*info->dlpi_name)
        dlopen(info->dlpi_name, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
    return 0;
}

/* Drivers and layers stay mapped when their instance goes: otherwise what they keep in their
 * globals looks leaked, by nobody known. */
static void pin_drivers(void) {
    dl_iterate_phdr(pin, NULL);
}
#else
static void pin_drivers(void) {
}
#endif

void tsr_vk_instance_destroy(tsr_vk *vk) {
    pin_drivers();
    if (vk->messenger)
        vk->destroy_messenger(vk->instance, vk->messenger, NULL);
    if (vk->instance)
        vkDestroyInstance(vk->instance, NULL);
    vk->messenger = VK_NULL_HANDLE;
    vk->instance = VK_NULL_HANDLE;
}

/* ---------------------------------------------------------------- choice */

const char *tsr_vk_unfit(VkPhysicalDevice p) {
    VkPhysicalDeviceProperties props;
    vkGetPhysicalDeviceProperties(p, &props);
    if (props.apiVersion < VK_API_VERSION_1_2)
        return "its driver knows Vulkan 1.1 only; 1.2 is needed";
    VkPhysicalDeviceVulkan12Features f12 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES};
    VkPhysicalDeviceFeatures2 f = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &f12};
    vkGetPhysicalDeviceFeatures2(p, &f);
    if (!f12.timelineSemaphore)
        return "it has no timeline semaphores";
    VkQueueFamilyProperties families[32];
    uint32_t n = 32;
    vkGetPhysicalDeviceQueueFamilyProperties(p, &n, families);
    for (uint32_t i = 0; i < n; i++)
        if (families[i].queueFlags & VK_QUEUE_COMPUTE_BIT)
            return NULL;
    return "it does not compute";
}

/* Of a device that knows Vulkan 1.1: older ones cannot be asked. */
static bool has_uuid(VkPhysicalDevice p, const uint8_t uuid[16]) {
    VkPhysicalDeviceIDProperties id = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ID_PROPERTIES};
    VkPhysicalDeviceProperties2 props = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &id};
    vkGetPhysicalDeviceProperties2(p, &props);
    return !memcmp(id.deviceUUID, uuid, VK_UUID_SIZE);
}

/* The rule of the choice, best first: the UUID, GPUs by how much they are one, software. */
static int rank_of(VkPhysicalDevice p, const uint8_t *uuid) {
    VkPhysicalDeviceProperties props;
    vkGetPhysicalDeviceProperties(p, &props);
    if (uuid && has_uuid(p, uuid))
        return 0;
    switch (props.deviceType) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
        return 1;
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
        return 2;
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
        return 3;
    case VK_PHYSICAL_DEVICE_TYPE_CPU:
        return 5;
    default:
        return 4;
    }
}

/* out: those that can be used, by that rule; of the same rank as they are listed. How many. */
static int order(const VkPhysicalDevice *devices, int n, const uint8_t *uuid, int out[TSR_VK_DEVICES]) {
    int rank[TSR_VK_DEVICES], count = 0;
    for (int i = 0; i < n; i++) {
        if (tsr_vk_unfit(devices[i]))
            continue;
        int mine = rank_of(devices[i], uuid), at = count++;
        for (; at > 0 && rank[at - 1] > mine; at--) {
            rank[at] = rank[at - 1];
            out[at] = out[at - 1];
        }
        rank[at] = mine;
        out[at] = i;
    }
    return count;
}

int tsr_vk_devices(const tsr_vk *vk, const uint8_t *uuid, int out[TSR_VK_DEVICES]) {
    VkPhysicalDevice devices[TSR_VK_DEVICES];
    uint32_t n = TSR_VK_DEVICES;
    return vkEnumeratePhysicalDevices(vk->instance, &n, devices) < 0 ? 0 : order(devices, (int)n, uuid, out);
}

tsr_status tsr_vk_pick(tsr_vk *vk, const tsr_vk_params *params) {
    tsr_status status;
    VkPhysicalDevice devices[TSR_VK_DEVICES];
    uint32_t n = TSR_VK_DEVICES;
    int best[TSR_VK_DEVICES];
    VK(vkEnumeratePhysicalDevices(vk->instance, &n, devices)); /* VK_INCOMPLETE: the first so many */
    if (!n)
        return tsr_fail(TSR_ERR_DEVICE, "vulkan: no device; install your GPU's driver, or "
                                        "mesa-vulkan-drivers for one in software");
    int pick = params->index;
    if (pick >= (int)n || pick < -1)
        return tsr_fail(
            TSR_ERR_ARGUMENT, "vulkan: there is no device %d; there are %u, from 0 (tessera info lists them)", pick, n);
    if (pick < 0 && order(devices, (int)n, params->uuid, best))
        pick = best[0];
    const char *unfit = pick < 0 ? NULL : tsr_vk_unfit(devices[pick]);
    if (pick < 0 || unfit)
        return tsr_fail(TSR_ERR_DEVICE, "vulkan: device %d cannot be used: %s", pick < 0 ? 0 : pick,
            unfit ? unfit : tsr_vk_unfit(devices[0]));
    vk->index = pick;
    vk->physical = devices[pick];
    return TSR_OK;
error:
    return status;
}

void tsr_vk_why_other(const tsr_vk *vk, const uint8_t uuid[16], char *why, size_t size) {
    VkPhysicalDevice devices[TSR_VK_DEVICES];
    uint32_t n = TSR_VK_DEVICES;
    if (vkEnumeratePhysicalDevices(vk->instance, &n, devices) < 0)
        n = 0;
    snprintf(why, size, "no Vulkan driver here knows the GPU; install its own, or let the container have graphics");
    for (uint32_t i = 0; i < n; i++) {
        VkPhysicalDeviceProperties props;
        vkGetPhysicalDeviceProperties(devices[i], &props);
        if (props.apiVersion < VK_API_VERSION_1_1 || !has_uuid(devices[i], uuid))
            continue;
        const char *unfit = tsr_vk_unfit(devices[i]);
        snprintf(why, size, "the GPU is Vulkan's device %u, %s%s", i,
            unfit ? "which cannot be used: " : "and another was asked for", unfit ? unfit : "");
        return;
    }
}
