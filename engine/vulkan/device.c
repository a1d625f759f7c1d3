/* The device: what it can do, its queue, its life, and the report about it. */
#include "vulkan/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- what it can do */

static bool has_extension(const VkExtensionProperties *list, uint32_t n, const char *name) {
    for (uint32_t i = 0; i < n; i++)
        if (!strcmp(list[i].extensionName, name))
            return true;
    return false;
}

/* Extensions to enable, of those this floor has a use for. */
typedef struct wanted {
    const char *name[8];
    uint32_t n;
    bool host, memory, semaphore;
} wanted;

static tsr_status find_extensions(tsr_vk *vk, bool swapchain, wanted *w) {
    tsr_status status = TSR_OK;
    VkExtensionProperties *list = NULL;
    uint32_t n = 0;
    VK(vkEnumerateDeviceExtensionProperties(vk->physical, NULL, &n, NULL));
    list = malloc((n ? n : 1) * sizeof *list);
    if (!list)
        return tsr_fail(TSR_ERR_MEMORY, "vulkan: no memory for a list of extensions");
    VK(vkEnumerateDeviceExtensionProperties(vk->physical, NULL, &n, list));
    *w = (wanted){
        .host = has_extension(list, n, VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME),
        .memory = has_extension(list, n, tsr_vk_memory_extension),
        .semaphore = has_extension(list, n, tsr_vk_semaphore_extension),
    };
    if (w->host)
        w->name[w->n++] = VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME;
    if (w->memory)
        w->name[w->n++] = tsr_vk_memory_extension;
    if (w->semaphore)
        w->name[w->n++] = tsr_vk_semaphore_extension;
    vk->swapchain = swapchain && has_extension(list, n, VK_KHR_SWAPCHAIN_EXTENSION_NAME);
    if (vk->swapchain)
        w->name[w->n++] = VK_KHR_SWAPCHAIN_EXTENSION_NAME;
error:
    free(list);
    return status;
}

static VkExternalMemoryFeatureFlags memory_features(const tsr_vk *vk, VkExternalMemoryHandleTypeFlagBits type) {
    VkPhysicalDeviceExternalBufferInfo info = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_BUFFER_INFO,
        .usage =
            VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT,
        .handleType = type,
    };
    VkExternalBufferProperties props = {.sType = VK_STRUCTURE_TYPE_EXTERNAL_BUFFER_PROPERTIES};
    vkGetPhysicalDeviceExternalBufferProperties(vk->physical, &info, &props);
    return props.externalMemoryProperties.externalMemoryFeatures;
}

static bool timelines_leave(const tsr_vk *vk) {
    VkSemaphoreTypeCreateInfo timeline = {
        /* without it the answer is about binary semaphores */
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
        .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE,
    };
    VkPhysicalDeviceExternalSemaphoreInfo info = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_SEMAPHORE_INFO,
        .pNext = &timeline,
        .handleType = tsr_vk_semaphore_type,
    };
    VkExternalSemaphoreProperties props = {.sType = VK_STRUCTURE_TYPE_EXTERNAL_SEMAPHORE_PROPERTIES};
    vkGetPhysicalDeviceExternalSemaphoreProperties(vk->physical, &info, &props);
    return props.externalSemaphoreFeatures & VK_EXTERNAL_SEMAPHORE_FEATURE_EXPORTABLE_BIT;
}

static void learn_sharing(tsr_vk *vk, const wanted *w, bool no_host_import) {
    VkExternalMemoryFeatureFlags host =
        w->host ? memory_features(vk, VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT) : 0;
    vk->host_import = host & VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT && !no_host_import;
    vk->why_no_host_import = no_host_import ? "turned off"
                             : !w->host     ? "the driver lacks VK_EXT_external_memory_host"
                                            : "the driver does not import host pages for buffers";
    VkExternalMemoryFeatureFlags fd = w->memory ? memory_features(vk, tsr_vk_memory_type) : 0;
    vk->memory_import = fd & VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT;
    vk->memory_export = fd & VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT;
    vk->dedicated = fd & VK_EXTERNAL_MEMORY_FEATURE_DEDICATED_ONLY_BIT;
    vk->why_no_memory_import = w->memory ? "the driver does not import memory for buffers" : tsr_vk_memory_lacking;
    vk->timeline_export = w->semaphore && timelines_leave(vk);
    vk->why_no_timeline_export =
        w->semaphore ? "the driver does not export timeline semaphores" : tsr_vk_semaphore_lacking;
}

static void learn_limits(tsr_vk *vk) {
    VkPhysicalDeviceExternalMemoryHostPropertiesEXT host = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_MEMORY_HOST_PROPERTIES_EXT};
    VkPhysicalDeviceMaintenance3Properties most = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES, .pNext = &host};
    vk->driver = (VkPhysicalDeviceDriverProperties){
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES, .pNext = &most};
    vk->id =
        (VkPhysicalDeviceIDProperties){.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ID_PROPERTIES, .pNext = &vk->driver};
    VkPhysicalDeviceProperties2 props = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &vk->id};
    vkGetPhysicalDeviceProperties2(vk->physical, &props);
    vkGetPhysicalDeviceMemoryProperties(vk->physical, &vk->memory);
    vk->properties = props.properties;
    const VkDeviceSize gib = 1u << 30; /* beyond, element numbers would leave the shaders' int */
    VkDeviceSize range = props.properties.limits.maxStorageBufferRange;
    vk->range_most = range < gib ? range : gib;
    vk->offset_align = props.properties.limits.minStorageBufferOffsetAlignment;
    vk->import_align = host.minImportedHostPointerAlignment;
    vk->memory_most = most.maxMemoryAllocationSize;
    vk->id.pNext = vk->driver.pNext = NULL; /* they led to this stack frame */
}

/* A family that computes and, for the window's sake, draws; else one that computes. */
static uint32_t choose_family(const tsr_vk *vk) {
    VkQueueFamilyProperties families[32];
    uint32_t n = 32, computes = 0;
    vkGetPhysicalDeviceQueueFamilyProperties(vk->physical, &n, families);
    for (uint32_t i = n; i-- > 0;) {
        if (families[i].queueFlags & VK_QUEUE_COMPUTE_BIT)
            computes = i;
    }
    for (uint32_t i = 0; i < n; i++)
        if (families[i].queueFlags & VK_QUEUE_COMPUTE_BIT && families[i].queueFlags & VK_QUEUE_GRAPHICS_BIT)
            return i;
    return computes;
}

/* ---------------------------------------------------------------- life */

static tsr_status create_device(tsr_vk *vk, const tsr_vk_params *params) {
    tsr_status status;
    wanted w;
    TSR_TRY(find_extensions(vk, params->swapchain, &w));
    learn_limits(vk);
    learn_sharing(vk, &w, params->no_host_import);
    VkPhysicalDeviceVulkan11Features has = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES};
    VkPhysicalDeviceFeatures2 ask = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &has};
    vkGetPhysicalDeviceFeatures2(vk->physical, &ask);
    vk->f16 = has.storageBuffer16BitAccess;
    vk->family = choose_family(vk);
    VkPhysicalDeviceVulkan12Features f12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
        .timelineSemaphore = VK_TRUE,
    };
    VkPhysicalDeviceVulkan11Features f11 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES,
        .pNext = &f12,
        .storageBuffer16BitAccess = vk->f16,
    };
    float priority = 1;
    VkDeviceQueueCreateInfo queue = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
        .queueFamilyIndex = vk->family,
        .queueCount = 1,
        .pQueuePriorities = &priority,
    };
    VkDeviceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .pNext = &f11,
        .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &queue,
        .enabledExtensionCount = w.n,
        .ppEnabledExtensionNames = w.name,
    };
    VK(vkCreateDevice(vk->physical, &info, NULL, &vk->device));
    volkLoadDeviceTable(&vk->d, vk->device);
    vk->d.vkGetDeviceQueue(vk->device, vk->family, 0, &vk->queue);
    return TSR_OK;
error:
    return status;
}

static tsr_status create_layouts(tsr_vk *vk) {
    tsr_status status;
    VkDescriptorSetLayoutBinding bindings[VK_BINDINGS];
    for (uint32_t i = 0; i < VK_BINDINGS; i++)
        bindings[i] = (VkDescriptorSetLayoutBinding){
            .binding = i,
            .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
            .descriptorCount = 1,
            .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT,
        };
    VkDescriptorSetLayoutCreateInfo set = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
        .bindingCount = VK_BINDINGS,
        .pBindings = bindings,
    };
    VK(vk->d.vkCreateDescriptorSetLayout(vk->device, &set, NULL, &vk->set_layout));
    VkPushConstantRange push = {.stageFlags = VK_SHADER_STAGE_COMPUTE_BIT, .size = VK_PUSH_BYTES};
    VkPipelineLayoutCreateInfo layout = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
        .setLayoutCount = 1,
        .pSetLayouts = &vk->set_layout,
        .pushConstantRangeCount = 1,
        .pPushConstantRanges = &push,
    };
    VK(vk->d.vkCreatePipelineLayout(vk->device, &layout, NULL, &vk->layout));
    return TSR_OK;
error:
    return status;
}

tsr_status tsr_vk_create(tsr_vk **out, const tsr_vk_params *params) {
    tsr_status status;
    *out = NULL;
    tsr_vk *vk = calloc(1, sizeof *vk);
    if (!vk)
        return tsr_fail(TSR_ERR_MEMORY, "vulkan: no memory for the device");
    TSR_TRY(tsr_vk_instance_create(vk, params));
    TSR_TRY(tsr_vk_pick(vk, params));
    TSR_TRY(create_device(vk, params));
    TSR_TRY(create_layouts(vk));
    TSR_TRY(tsr_vk_batches_create(vk));
    *out = vk;
    return TSR_OK;
error:
    tsr_vk_destroy(&vk);
    return status;
}

void tsr_vk_destroy(tsr_vk **p) {
    tsr_vk *vk = *p;
    if (!vk)
        return;
    if (vk->device) {
        tsr_vk_batches_destroy(vk);
        for (int i = 0; i < VK_READBACKS; i++)
            tsr_vk_buffer_destroy(vk, &vk->readback[i].b);
        tsr_vk_buffer_destroy(vk, &vk->error);
        tsr_vk_buffer_destroy(vk, &vk->dither);
        for (int i = 0; i < VK_PIPES; i++)
            vk->d.vkDestroyPipeline(vk->device, vk->pipe[i], NULL);
        tsr_vk_drop_show_pipes(vk);
        vk->d.vkDestroyPipelineLayout(vk->device, vk->show_layout, NULL);
        vk->d.vkDestroyDescriptorSetLayout(vk->device, vk->show_set_layout, NULL);
        vk->d.vkDestroyPipelineLayout(vk->device, vk->layout, NULL);
        vk->d.vkDestroyDescriptorSetLayout(vk->device, vk->set_layout, NULL);
        vk->d.vkDestroyDevice(vk->device, NULL);
    }
    tsr_vk_instance_destroy(vk);
    free(vk);
    *p = NULL;
}

/* ---------------------------------------------------------------- about it */

const char *tsr_vk_device_name(const tsr_vk *vk) {
    return vk->properties.deviceName;
}

bool tsr_vk_is_software(const tsr_vk *vk) {
    return vk->properties.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
}

bool tsr_vk_is_uuid(const tsr_vk *vk, const uint8_t uuid[16]) {
    return !memcmp(vk->id.deviceUUID, uuid, VK_UUID_SIZE);
}

int tsr_vk_validation_messages(const tsr_vk *vk) {
    return atomic_load(&vk->messages);
}

size_t tsr_vk_used(const tsr_vk *vk) {
    return vk->used;
}

static void say(tsr_line_fn line, void *user, const char *key, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static void say(tsr_line_fn line, void *user, const char *key, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    line(user, key, text);
}

static void report_others(const tsr_vk *vk, tsr_line_fn line, void *user) {
    VkPhysicalDevice devices[TSR_VK_DEVICES];
    uint32_t n = TSR_VK_DEVICES;
    if (vkEnumeratePhysicalDevices(vk->instance, &n, devices) < 0)
        return;
    for (uint32_t i = 0; i < n; i++) {
        if ((int)i == vk->index)
            continue;
        VkPhysicalDeviceProperties props;
        vkGetPhysicalDeviceProperties(devices[i], &props);
        const char *unfit = tsr_vk_unfit(devices[i]);
        say(line, user, "other Vulkan device", "%u: %s%s%s", i, props.deviceName, unfit ? ": cannot be used, " : "",
            unfit ? unfit : "");
    }
}

void tsr_vk_report(tsr_vk *vk, tsr_line_fn line, void *user) {
    uint32_t api = vk->properties.apiVersion;
    char bytes[32];
    say(line, user, "Vulkan device", "%d: %s%s", vk->index, vk->properties.deviceName,
        tsr_vk_is_software(vk) ? ", software" : "");
    say(line, user, "Vulkan driver", "%s %s, API %u.%u.%u", vk->driver.driverName, vk->driver.driverInfo,
        VK_API_VERSION_MAJOR(api), VK_API_VERSION_MINOR(api), VK_API_VERSION_PATCH(api));
    say(line, user, "Vulkan 16-bit frames", "%s", vk->f16 ? "yes" : "no: the driver lacks 16-bit storage");
    say(line, user, "Vulkan largest binding", "%s", tsr_bytes_text(bytes, (int64_t)vk->range_most));
    if (vk->host_import)
        say(line, user, "Vulkan imports host pages", "yes, aligned to %u bytes", (unsigned)vk->import_align);
    else
        say(line, user, "Vulkan imports host pages", "no: %s; tiles are copied", vk->why_no_host_import);
    if (vk->memory_import)
        say(line, user, "Vulkan imports device memory", "yes%s%s", vk->memory_export ? "; exports it too" : "",
            vk->dedicated ? "; dedicated allocations only" : "");
    else
        say(line, user, "Vulkan imports device memory", "no: %s", vk->why_no_memory_import);
    if (vk->timeline_export)
        line(user, "Vulkan exports timelines", "yes");
    else
        say(line, user, "Vulkan exports timelines", "no: %s", vk->why_no_timeline_export);
    report_others(vk, line, user);
}
