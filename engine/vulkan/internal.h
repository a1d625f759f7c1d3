/* What the files of this floor share. The window (the only other place that speaks Vulkan) may
 * include it too. */
#ifndef TSR_VK_INTERNAL_H
#define TSR_VK_INTERNAL_H

#include "vulkan/vk.h"

#ifdef _WIN32
#define VK_USE_PLATFORM_WIN32_KHR
#endif
#include <volk.h>

#include <stdatomic.h>

/* The single check macro of Vulkan calls: as TSR_TRY. The call's text and place go to the debug
 * log, its name into the error. */
#define VK(call)                                                                                                       \
    do {                                                                                                               \
        VkResult result_ = tsr_vk_failing() ? VK_ERROR_DEVICE_LOST : (call);                                           \
        if (result_ < 0) {                                                                                             \
            status = tsr_vk_error(result_, #call, __FILE__, __LINE__);                                                 \
            goto error;                                                                                                \
        }                                                                                                              \
    } while (0)
bool tsr_vk_failing(void);
tsr_status tsr_vk_error(VkResult result, const char *call, const char *file, int line);

/* A buffer with its own memory. */
typedef struct vk_buffer {
    VkBuffer buffer;
    VkDeviceMemory memory;
    VkDeviceSize bytes; /* of the buffer */
    VkDeviceSize taken; /* of the memory, where we allocated it; 0: imported */
    void *mapped;       /* NULL where not for the host */
    bool coherent;
    VkBufferView texels; /* of tsr_vk_buffer_texels, made at first use */
} vk_buffer;

typedef enum vk_home {
    VK_HOME_DEVICE,   /* device-local */
    VK_HOME_UPLOAD,   /* the host writes, the device reads once */
    VK_HOME_READBACK, /* the device writes, the host reads: cached where there is such memory */
} vk_home;

enum {
    VK_BATCHES = 4,            /* submissions under way at once */
    VK_BATCH_SETS = 256,       /* dispatches in one */
    VK_BATCH_UPLOAD = 1 << 20, /* bytes of weights in one */
    VK_BATCH_WAITS = 16,       /* timelines one waits for */
    VK_BINDINGS = 5,           /* storage buffers a shader sees */
    VK_SHOW_BINDINGS = 8,      /* what those of the preview see */
    VK_SHOW_TEXELS = 4,        /* of these, buffers read as texels */
    VK_READBACKS = 2,
    VK_DITHER = 64, /* edge of the dither pattern */
    VK_PUSH_BYTES = 64,
    VK_SHOW_PUSH_BYTES = 80,
};

/* One submission: recorded, started, done, used again. */
typedef struct vk_batch {
    VkCommandPool pool;
    VkCommandBuffer commands;
    VkDescriptorPool sets;
    int sets_used;
    vk_buffer upload;
    size_t upload_at;
    uint64_t ticket; /* that it had, or will have while it records; 0: never used */
    int waits;
    VkSemaphore wait[VK_BATCH_WAITS];
    uint64_t wait_value[VK_BATCH_WAITS];
} vk_batch;

struct tsr_vk_timeline {
    VkSemaphore semaphore;
    bool exportable;
};

struct tsr_vk_slab {
    vk_buffer b;
    void *copy_from; /* host pages, where they are not imported: b.mapped mirrors them, tile by tile
                      */
    size_t bytes;    /* that hold slots */
    bool external;   /* another API writes it: its queue family owns it between blends */
};

struct tsr_vk_frames {
    int width, height, count;
    tsr_dtype dtype;
    vk_buffer *frame;  /* [count] */
    uint64_t *touched; /* [count], value of tsr_vk.epoch when work last used it */
};

typedef struct vk_readback {
    vk_buffer b;
    size_t bytes;    /* of pixels */
    uint64_t ticket; /* that fills it; 0: none yet */
} vk_readback;

/* Pipelines, made at first use. Of those from VK_PIPE_SHOW on there are as many as there are kinds of
 * pictures to show. */
enum {
    VK_PIPE_BLEND,                       /* + 4 * (plane by plane) + 2 * (slot is F16) + (frame is F16) */
    VK_PIPE_RESOLVE = VK_PIPE_BLEND + 8, /* + 4 * (frame is F16) + the mode of resolve.comp */
    VK_PIPE_SHOW = VK_PIPE_RESOLVE + 8,  /* + (canvas is deep) */
    VK_PIPE_FLATTEN = VK_PIPE_SHOW + 2,  /* + (frame is F16) */
    VK_PIPE_ERROR = VK_PIPE_FLATTEN + 2,
    VK_PIPES = VK_PIPE_ERROR + 1,
    VK_SHOW_PIPES = 64, /* kept at a time */
};

typedef struct vk_show_pipe {
    int which, kind;
    VkPipeline pipe;
} vk_show_pipe;

struct tsr_vk {
    VkInstance instance;
    VkDebugUtilsMessengerEXT messenger;
    /* Extension functions of the instance: volk's globals are those of the first instance made. */
    PFN_vkCreateDebugUtilsMessengerEXT create_messenger;
    PFN_vkDestroyDebugUtilsMessengerEXT destroy_messenger;
    PFN_vkSetDebugUtilsObjectNameEXT set_name;
    atomic_int messages;

    VkPhysicalDevice physical;
    int index; /* among the instance's devices */
    VkPhysicalDeviceProperties properties;
    VkPhysicalDeviceDriverProperties driver;
    VkPhysicalDeviceIDProperties id;
    VkPhysicalDeviceMemoryProperties memory;
    bool f16, swapchain, host_import, memory_import, memory_export, dedicated, timeline_export;
    const char *why_no_host_import, *why_no_memory_import, *why_no_timeline_export;
    VkDeviceSize range_most;   /* bytes a binding may have */
    VkDeviceSize offset_align; /* of a binding, power of two */
    VkDeviceSize import_align; /* of host pages */
    VkDeviceSize memory_most;  /* bytes one allocation may have */

    VkDevice device;
    struct VolkDeviceTable d;
    VkQueue queue;
    uint32_t family; /* computes, and draws where a family does both */

    VkDescriptorSetLayout set_layout, show_set_layout; /* show_: of the pipelines from VK_PIPE_SHOW on; made with */
    VkPipelineLayout layout, show_layout;              /* the first of them */
    VkPipeline pipe[VK_PIPES];
    vk_show_pipe show_pipe[VK_SHOW_PIPES];
    int show_pipes;
    vk_buffer dither; /* float [64][64], made at first use */

    tsr_vk_timeline *progress;
    uint64_t started, done; /* tickets */
    vk_batch batch[VK_BATCHES];
    vk_batch *open; /* that records, or NULL */
    uint64_t epoch; /* number of barriers recorded */

    bool (*failed)(void *user); /* tsr_vk_watch */
    void *failed_user;

    vk_readback readback[VK_READBACKS];
    vk_buffer error; /* sums of rows, of show.c */
    uint64_t error_ticket;
    int error_rows, error_columns;
    int resolves; /* so far: the last used readback[(resolves - 1) % VK_READBACKS] */
    size_t used;
};

/* instance.c */
tsr_status tsr_vk_instance_create(tsr_vk *vk, const tsr_vk_params *params);
void tsr_vk_instance_destroy(tsr_vk *vk);
tsr_status tsr_vk_pick(tsr_vk *vk, const tsr_vk_params *params);
/* Why a device cannot be used at all, or NULL. */
const char *tsr_vk_unfit(VkPhysicalDevice p);

/* external.c: the only file that knows fds from NT handles. */
extern const VkExternalMemoryHandleTypeFlagBits tsr_vk_memory_type;
extern const VkExternalSemaphoreHandleTypeFlagBits tsr_vk_semaphore_type;
extern const char *const tsr_vk_memory_extension, *const tsr_vk_semaphore_extension;
extern const char *const tsr_vk_memory_lacking, *const tsr_vk_semaphore_lacking; /* why it is not there */
tsr_status tsr_vk_memory_export_handle(tsr_vk *vk, VkDeviceMemory memory, tsr_handle *out);
/* Allocates `bytes` of memory type `type` around the handle. An fd is taken in any case. */
tsr_status tsr_vk_memory_import_handle(
    tsr_vk *vk, tsr_handle handle, VkDeviceSize bytes, uint32_t type, VkBuffer dedicated, VkDeviceMemory *out);
/* Of a handle that nothing was done with: an fd is closed, as tsr_vk_slab_fd says. */
void tsr_vk_handle_reject(tsr_handle handle);

/* memory.c */
/* A memory type of `bits` with all of `want` and as many of `like` as there are, -1 where none. */
int tsr_vk_memory_type_index(const tsr_vk *vk, uint32_t bits, VkMemoryPropertyFlags want, VkMemoryPropertyFlags like);
/* `external`: handle types the memory may be imported from or exported to, or 0. */
tsr_status tsr_vk_buffer_bare(
    tsr_vk *vk, vk_buffer *b, VkDeviceSize bytes, VkExternalMemoryHandleTypeFlags external, const char *name);
tsr_status tsr_vk_buffer_create(tsr_vk *vk, vk_buffer *b, VkDeviceSize bytes, vk_home home, const char *name);
void tsr_vk_buffer_destroy(tsr_vk *vk, vk_buffer *b);
/* The buffer, of our own memory and all of one type, as texels: the device makes floats of them. */
tsr_status tsr_vk_buffer_texels(tsr_vk *vk, vk_buffer *b, tsr_dtype dtype, VkBufferView *out);
void tsr_vk_name(tsr_vk *vk, VkObjectType type, uint64_t object, const char *name);

/* batch.c */
tsr_status tsr_vk_batches_create(tsr_vk *vk);
void tsr_vk_batches_destroy(tsr_vk *vk);
/* The batch that records, with room for so many dispatches, bytes of upload and, where `wait` is
 * given, a wait; starts the one before where it is full. */
tsr_status tsr_vk_batch_room(
    tsr_vk *vk, int sets, size_t upload, const tsr_vk_timeline *wait, uint64_t value, vk_batch **out);
/* `bytes` of the batch's upload memory, within the room asked for: where to write them, and their
 * piece to bind. */
void *tsr_vk_batch_upload(tsr_vk *vk, vk_batch *b, size_t bytes, VkDescriptorBufferInfo *piece);
/* A piece of a buffer to bind: the offset rounded down to the device's alignment; what that adds in
 * front, in bytes, in *rest. */
VkDescriptorBufferInfo tsr_vk_piece(
    const tsr_vk *vk, const vk_buffer *b, VkDeviceSize at, VkDeviceSize bytes, VkDeviceSize *rest);
/* Between uses here a piece of an external slab belongs to the API that shares it. */
void tsr_vk_change_owner(
    tsr_vk *vk, vk_batch *b, const tsr_vk_slab *s, VkDeviceSize at, VkDeviceSize bytes, bool acquire);
/* A descriptor set of the batch, there until it is done. */
tsr_status tsr_vk_batch_set(tsr_vk *vk, vk_batch *b, VkDescriptorSetLayout layout, VkDescriptorSet *out);
tsr_status tsr_vk_dispatch(tsr_vk *vk, vk_batch *b, VkPipeline pipe, const VkDescriptorBufferInfo *bind, int binds,
    const void *push, size_t push_bytes, uint32_t groups_x, uint32_t groups_y);
/* What is recorded next on this accumulator comes after all earlier work on it: a barrier where one
 * is missing. */
void tsr_vk_touch(tsr_vk *vk, vk_batch *b, tsr_vk_frames *f, int frame);
/* Before anything is destroyed: drops what was recorded and not started, waits for what was. Wait
 * values of a producer that failed (tsr_vk_watch; nobody asks: after two seconds) are signalled
 * from here. */
void tsr_vk_drain(tsr_vk *vk);

/* resolve.c: the pattern, made at first use. */
tsr_status tsr_vk_need_dither(tsr_vk *vk);
/* Where a picture's corner lies in the pattern, which walks over the frames (R2 sequence) so that
 * it does not stand still. */
static inline void tsr_vk_dither_walk(int64_t index, int32_t *x, int32_t *y) {
    *x = (int32_t)((uint32_t)index * 3242174889u >> 26);
    *y = (int32_t)((uint32_t)index * 2447445414u >> 26);
}

/* pipelines.c */
tsr_status tsr_vk_pipe(tsr_vk *vk, int which, VkPipeline *out);
/* Of the pipelines from VK_PIPE_SHOW on; kind is KIND of layers.glsl. */
tsr_status tsr_vk_show_pipe(tsr_vk *vk, int which, int kind, VkPipeline *out);
void tsr_vk_drop_show_pipes(tsr_vk *vk);

/* dither.c: thresholds (k + 0.5) / 4096, each once, [VK_DITHER][VK_DITHER]. */
void tsr_vk_dither_pattern(float *out);

#endif
