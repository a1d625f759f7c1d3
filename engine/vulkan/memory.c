/* Buffers with their memory. */
#include "vulkan/internal.h"

int tsr_vk_memory_type_index(const tsr_vk *vk, uint32_t bits, VkMemoryPropertyFlags want, VkMemoryPropertyFlags like) {
    int best = -1, best_score = -1;
    for (uint32_t i = 0; i < vk->memory.memoryTypeCount; i++) {
        VkMemoryPropertyFlags has = vk->memory.memoryTypes[i].propertyFlags;
        /* types without properties exist on NVIDIA and are not for allocations that say what they
         * want */
        if (!(bits >> i & 1) || !has || (has & want) != want)
            continue;
        int score = __builtin_popcount(has & like);
        if (score > best_score) {
            best = (int)i;
            best_score = score;
        }
    }
    return best;
}

void tsr_vk_name(tsr_vk *vk, VkObjectType type, uint64_t object, const char *name) {
    if (!vk->set_name)
        return;
    VkDebugUtilsObjectNameInfoEXT info = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_OBJECT_NAME_INFO_EXT,
        .objectType = type,
        .objectHandle = object,
        .pObjectName = name,
    };
    vk->set_name(vk->device, &info); /* a help while debugging: failing does no harm */
}

tsr_status tsr_vk_buffer_bare(
    tsr_vk *vk, vk_buffer *b, VkDeviceSize bytes, VkExternalMemoryHandleTypeFlags external, const char *name) {
    tsr_status status;
    VkExternalMemoryBufferCreateInfo ext = {
        .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO, .handleTypes = external};
    VkBufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
        .pNext = external ? &ext : NULL,
        .size = bytes,
        .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                 VK_BUFFER_USAGE_TRANSFER_DST_BIT |
                 (external ? 0 : (VkBufferUsageFlags)VK_BUFFER_USAGE_UNIFORM_TEXEL_BUFFER_BIT),
    };
    *b = (vk_buffer){.bytes = bytes};
    VK(vk->d.vkCreateBuffer(vk->device, &info, NULL, &b->buffer));
    tsr_vk_name(vk, VK_OBJECT_TYPE_BUFFER, (uint64_t)b->buffer, name);
    return TSR_OK;
error:
    return status;
}

/* What a home must have and should have. Uploads are read by the device once: where they lie in
 * system memory, that read is the transfer. */
static int type_for(const tsr_vk *vk, uint32_t bits, vk_home home) {
    const VkMemoryPropertyFlags visible = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT,
                                coherent = VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    switch (home) {
    case VK_HOME_DEVICE:
        return tsr_vk_memory_type_index(vk, bits, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT, 0);
    case VK_HOME_UPLOAD:
        return tsr_vk_memory_type_index(vk, bits, visible | coherent, 0);
    case VK_HOME_READBACK: {
        int cached = tsr_vk_memory_type_index(vk, bits, visible | VK_MEMORY_PROPERTY_HOST_CACHED_BIT, coherent);
        return cached >= 0 ? cached : tsr_vk_memory_type_index(vk, bits, visible | coherent, 0);
    }
    }
    return -1;
}

tsr_status tsr_vk_buffer_create(tsr_vk *vk, vk_buffer *b, VkDeviceSize bytes, vk_home home, const char *name) {
    tsr_status status;
    TSR_TRY(tsr_vk_buffer_bare(vk, b, bytes, 0, name));
    VkMemoryRequirements need;
    vk->d.vkGetBufferMemoryRequirements(vk->device, b->buffer, &need);
    char text[32];
    if (need.size > vk->memory_most) {
        status = tsr_fail(TSR_ERR_MEMORY,
            "vulkan: %s takes %s, more than %s allocates at once; make the picture or its tiles "
            "smaller",
            name, tsr_bytes_text(text, (int64_t)need.size), vk->properties.deviceName);
        goto error;
    }
    int type = type_for(vk, need.memoryTypeBits, home);
    if (type < 0) {
        status = tsr_fail(TSR_ERR_DEVICE, "vulkan: %s has no memory for %s", vk->properties.deviceName, name);
        goto error;
    }
    VkMemoryAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .allocationSize = need.size,
        .memoryTypeIndex = (uint32_t)type,
    };
    VK(vk->d.vkAllocateMemory(vk->device, &info, NULL, &b->memory));
    b->taken = need.size;
    vk->used += b->taken;
    tsr_vk_name(vk, VK_OBJECT_TYPE_DEVICE_MEMORY, (uint64_t)b->memory, name);
    VK(vk->d.vkBindBufferMemory(vk->device, b->buffer, b->memory, 0));
    b->coherent = vk->memory.memoryTypes[type].propertyFlags & VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    if (home != VK_HOME_DEVICE)
        VK(vk->d.vkMapMemory(vk->device, b->memory, 0, VK_WHOLE_SIZE, 0, &b->mapped));
    return TSR_OK;
error:
    tsr_vk_buffer_destroy(vk, b);
    return status;
}

tsr_status tsr_vk_buffer_texels(tsr_vk *vk, vk_buffer *b, tsr_dtype dtype, VkBufferView *out) {
    tsr_status status = TSR_OK;
    VkBufferViewCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_VIEW_CREATE_INFO,
        .buffer = b->buffer,
        .format = dtype == TSR_F16 ? VK_FORMAT_R16_SFLOAT : VK_FORMAT_R32_SFLOAT,
        .range = VK_WHOLE_SIZE,
    };
    if (!b->texels)
        VK(vk->d.vkCreateBufferView(vk->device, &info, NULL, &b->texels));
    *out = b->texels;
error:
    return status;
}

void tsr_vk_buffer_destroy(tsr_vk *vk, vk_buffer *b) {
    vk->d.vkDestroyBufferView(vk->device, b->texels, NULL);
    vk->d.vkDestroyBuffer(vk->device, b->buffer, NULL);
    vk->d.vkFreeMemory(vk->device, b->memory, NULL); /* unmaps */
    vk->used -= b->taken;
    *b = (vk_buffer){0};
}
