/* Devices, memory and semaphores shared with other APIs, failing calls. */
#include "sanitized.h"
#include "vulkan_help.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---------------------------------------------------------------- sharing */

/* Memory another Vulkan device exports, blended here: what CUDA's will be. */
Test(sharing, blends_memory_exported_by_another_device) {
    tsr_vk *vk = make(false), *other = make(false);
    if (!vk->memory_import || !other->memory_export)
        cr_skip_test("memory is not shared by fd here");
    int before = open_fds(), w = 24, h = 9;
    size_t n = (size_t)(w * h * 3), export_bytes;
    tsr_vk_slab *theirs, *ours;
    tsr_vk_frames *f;
    tsr_handle handle;
    void *mapped;
    OK(tsr_vk_slab_export(other, 3 * n * 2, &theirs, &handle, &export_bytes));
    cr_assert_geq(export_bytes, 3 * n * 2);
    cr_assert(other->d.vkMapMemory(other->device, theirs->b.memory, 0, VK_WHOLE_SIZE, 0, &mapped) == VK_SUCCESS);
    for (size_t i = 0; i < 3 * n; i++)
        ((uint16_t *)mapped)[i] = tsr_f32_to_f16((float)(i % 509) / 64);
    OK(tsr_vk_slab_fd(vk, handle, export_bytes, &ours));
    OK(tsr_vk_frames_create(vk, w, h, TSR_F16, 1, &f));
    for (int i = 0; i < 2; i++)
        OK(tsr_vk_blend_tile(vk, &(tsr_vk_blend){.slab = ours,
                                     .dtype = TSR_F16,
                                     .slot_frame = i + 1,
                                     .width = w,
                                     .height = h,
                                     .frames = f,
                                     .first = !i}));
    const float *p = read_frame(vk, f, 0);
    for (size_t i = 0; i < n; i++)
        cr_assert_float_eq(p[i], (float)((n + i) % 509) / 64 + (float)((2 * n + i) % 509) / 64, 0.008f);
    tsr_vk_slab_destroy(other, &theirs); /* the importer's memory lives on */
    OK(tsr_vk_blend_tile(
        vk, &(tsr_vk_blend){.slab = ours, .dtype = TSR_F16, .width = w, .height = h, .frames = f, .first = true}));
    cr_assert_eq(read_frame(vk, f, 0)[n - 1], tsr_f16_to_f32(tsr_f32_to_f16((float)((n - 1) % 509) / 64)));
    tsr_vk_slab_destroy(vk, &ours);
    tsr_vk_frames_destroy(vk, &f);
    cr_assert_eq(open_fds(), before);
    drop(vk);
    drop(other);
}

Test(sharing, a_bad_fd_is_refused_and_closed_once) {
    tsr_vk *vk = make(false);
    if (!vk->memory_import || !tsr_vk_is_software(vk))
        cr_skip_test("what drivers make of a stray fd is only known of lavapipe");
    int before = open_fds(), plain = memfd_create("plain", MFD_CLOEXEC);
    tsr_vk_slab *s;
    cr_assert(!ftruncate(plain, 65536));
    cr_assert_eq(tsr_vk_slab_fd(vk, plain, 65536, &s), TSR_ERR_DEVICE);
    cr_assert_null(s);
    cr_assert_eq(fcntl(plain, F_GETFD), -1);
    cr_assert_eq(tsr_vk_slab_fd(vk, -1, 65536, &s), TSR_ERR_ARGUMENT);
    cr_assert_eq(tsr_vk_slab_fd(vk, memfd_create("empty", 0), 0, &s), TSR_ERR_ARGUMENT);
    cr_assert_eq(open_fds(), before);
    drop(vk);
}

Test(sharing, timelines_are_exported_or_say_why_not) {
    tsr_vk *vk = make(false);
    tsr_vk_timeline *t = NULL;
    tsr_handle handle = TSR_NO_HANDLE;
    tsr_status status = tsr_vk_timeline_create(vk, true, &t);
    cr_assert_eq(status, vk->timeline_export ? TSR_OK : TSR_ERR_UNSUPPORTED);
    if (t) {
        OK(tsr_vk_timeline_export(vk, t, &handle));
        close(handle);
        tsr_vk_timeline_destroy(vk, &t);
        OK(tsr_vk_timeline_export(vk, tsr_vk_progress(vk), &handle));
        close(handle);
    } else {
        cr_assert(strstr(tsr_last_error(), "timeline"), "%s", tsr_last_error());
        cr_assert_eq(tsr_vk_timeline_export(vk, tsr_vk_progress(vk), &handle), TSR_ERR_UNSUPPORTED);
        cr_assert_eq(handle, TSR_NO_HANDLE);
    }
    drop(vk);
}

/* ---------------------------------------------------------------- devices */

Test(device, is_chosen_by_rule) {
    tsr_vk *vk = make(false), *same = NULL;
    uint8_t uuid[16] = {0};
    tsr_vk_params params = {.index = vk->index};
    OK(tsr_vk_create(&same, &params));
    cr_assert_str_eq(tsr_vk_device_name(same), tsr_vk_device_name(vk));
    tsr_vk_destroy(&same);
    params = (tsr_vk_params){.index = -1, .uuid = vk->id.deviceUUID};
    OK(tsr_vk_create(&same, &params));
    cr_assert(tsr_vk_is_uuid(same, vk->id.deviceUUID));
    cr_assert_not(tsr_vk_is_uuid(same, uuid));
    tsr_vk_destroy(&same);
    params.uuid = uuid; /* nobody's: the rule goes on */
    OK(tsr_vk_create(&same, &params));
    tsr_vk_destroy(&same);
    params.index = 31;
    cr_assert_eq(tsr_vk_create(&same, &params), TSR_ERR_ARGUMENT);
    cr_assert_null(same);
    drop(vk);
}

/* Devices that nobody here has, behind the loader's functions. */
typedef enum kind {
    GPU = VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU,
    INTEGRATED = VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU,
    VIRTUAL = VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU,
    OTHER = VK_PHYSICAL_DEVICE_TYPE_OTHER,
    SOFTWARE = VK_PHYSICAL_DEVICE_TYPE_CPU
} kind;

typedef struct card {
    kind type;
    uint32_t api;
    bool timelines;
    uint8_t uuid; /* every byte of it */
} card;

static const card *cards;
static uint32_t card_count;

static VKAPI_ATTR VkResult VKAPI_CALL list_cards(VkInstance instance, uint32_t *n, VkPhysicalDevice *out) {
    (void)instance;
    *n = card_count;
    for (uint32_t i = 0; i < *n; i++)
        out[i] = (VkPhysicalDevice)(uintptr_t)(cards + i);
    return VK_SUCCESS;
}
static VKAPI_ATTR void VKAPI_CALL card_properties(VkPhysicalDevice p, VkPhysicalDeviceProperties *out) {
    const card *c = (const card *)p;
    *out = (VkPhysicalDeviceProperties){.apiVersion = c->api, .deviceType = (VkPhysicalDeviceType)c->type};
}
static VKAPI_ATTR void VKAPI_CALL card_identity(VkPhysicalDevice p, VkPhysicalDeviceProperties2 *out) {
    VkPhysicalDeviceIDProperties *id = out->pNext;
    memset(id->deviceUUID, ((const card *)p)->uuid, sizeof id->deviceUUID);
}
static VKAPI_ATTR void VKAPI_CALL card_features(VkPhysicalDevice p, VkPhysicalDeviceFeatures2 *out) {
    VkPhysicalDeviceVulkan12Features *f = out->pNext;
    f->timelineSemaphore = ((const card *)p)->timelines;
}
static VKAPI_ATTR void VKAPI_CALL card_families(VkPhysicalDevice p, uint32_t *n, VkQueueFamilyProperties *out) {
    (void)p;
    *n = 1;
    out[0] = (VkQueueFamilyProperties){.queueFlags = VK_QUEUE_COMPUTE_BIT, .queueCount = 1};
}

/* Of these devices the one that a backend on the GPU `uuid` gets (0: on the CPU); why not its own, "" where it is. */
static void picks(const card *list, uint32_t n, uint8_t uuid, int index, int wanted, const char *because) {
    uint8_t bytes[16];
    char why[224] = "";
    tsr_vk vk = {0};
    tsr_vk_params params = {.index = index, .uuid = uuid ? bytes : NULL};
    memset(bytes, uuid, sizeof bytes);
    cards = list, card_count = n;
    OK(tsr_vk_pick(&vk, &params));
    cr_expect_eq(vk.index, wanted, "device %d of %u for %c", vk.index, n, uuid);
    if (uuid && list[vk.index].uuid != uuid)
        tsr_vk_why_other(&vk, bytes, why, sizeof why);
    cr_expect(*because ? strstr(why, because) != NULL : !*why, "'%s' for '%s'", why, because);
}

static void know_cards(void) {
    vkEnumeratePhysicalDevices = list_cards;
    vkGetPhysicalDeviceProperties = card_properties;
    vkGetPhysicalDeviceProperties2 = card_identity;
    vkGetPhysicalDeviceFeatures2 = card_features;
    vkGetPhysicalDeviceQueueFamilyProperties = card_families;
}

/* The order in which a window tries them, which begins with the choice. */
Test(device, the_next_best_follows) {
    static const card all[] = {{SOFTWARE, VK_API_VERSION_1_3, true, 's'}, {OTHER, VK_API_VERSION_1_3, true, 'o'},
        {VIRTUAL, VK_API_VERSION_1_3, true, 'v'}, {GPU, VK_API_VERSION_1_1, true, 'x'},
        {INTEGRATED, VK_API_VERSION_1_3, true, 'i'}, {GPU, VK_API_VERSION_1_3, true, 'a'},
        {INTEGRATED, VK_API_VERSION_1_3, true, 'j'}, {GPU, VK_API_VERSION_1_3, true, 'b'}};
    static const int gpus_first[] = {5, 7, 4, 6, 2, 1, 0}, own_first[] = {6, 5, 7, 4, 2, 1, 0};
    int have[TSR_VK_DEVICES];
    uint8_t own[16];
    tsr_vk vk = {0};
    memset(own, 'j', sizeof own);
    know_cards();
    cards = all, card_count = 8;
    cr_assert_eq(tsr_vk_devices(&vk, NULL, have), 7, "one of eight cannot be used");
    cr_expect_arr_eq(have, gpus_first, sizeof gpus_first);
    cr_assert_eq(tsr_vk_devices(&vk, own, have), 7);
    cr_expect_arr_eq(have, own_first, sizeof own_first);
    picks(all, 8, 0, -1, 5, "");
    picks(all, 3, 0, -1, 2, "");
    picks(all, 5, 0, -1, 4, "");
}

/* Several GPUs, the one asked for unfit, software beside them or alone. */
Test(device, is_the_gpu_that_decodes) {
    static const card two[] = {{GPU, VK_API_VERSION_1_3, true, 'a'}, {GPU, VK_API_VERSION_1_3, true, 'b'},
        {SOFTWARE, VK_API_VERSION_1_3, true, 's'}};
    static const card unfit[] = {{SOFTWARE, VK_API_VERSION_1_3, true, 's'}, {GPU, VK_API_VERSION_1_1, true, 'o'},
        {GPU, VK_API_VERSION_1_3, false, 't'}, {GPU, VK_API_VERSION_1_3, true, 'g'},
        {GPU, VK_API_VERSION_1_0, true, 'z'}};
    static const char nobody[] = "no Vulkan driver here knows the GPU";
    know_cards();
    picks(two, 3, 'a', -1, 0, "");
    picks(two, 3, 'b', -1, 1, "");
    picks(two, 3, 0, -1, 0, "");
    picks(two, 3, 'b', 0, 0, "the GPU is Vulkan's device 1, and another was asked for");
    picks(two, 3, 'x', -1, 0, nobody);
    picks(two + 2, 1, 'a', -1, 0, nobody); /* a data centre's container: CUDA, and Mesa in software */
    picks(unfit, 5, 'g', -1, 3, "");
    picks(unfit, 5, 'x', -1, 3, nobody);
    picks(unfit, 5, 'o', -1, 3, "device 1, which cannot be used: its driver knows Vulkan 1.1 only");
    picks(unfit, 5, 't', -1, 3, "device 2, which cannot be used: it has no timeline semaphores");
    picks(unfit, 5, 'z', -1, 3, nobody);
    picks(unfit, 5, 0, -1, 3, "");
}

static int lines;
static void on_line(void *user, const char *key, const char *value) {
    (void)user;
    cr_assert(*key && *value);
    lines++;
}

Test(device, reports) {
    tsr_vk *vk = make(false);
    tsr_vk_report(vk, on_line, NULL);
    cr_assert_geq(lines, 7);
    drop(vk);
}

Test(device, comes_and_goes_without_leaking_fds) {
    tsr_vk_params params = TSR_VK_PARAMS_DEFAULT;
    tsr_vk *vk = make(false);
    drop(vk);
    int before = 0;
    for (int i = 0; i < (SANITIZED ? 10 : 50); i++) {
        OK(tsr_vk_create(&vk, &params));
        tsr_vk_frames *f;
        tsr_vk_slab *s;
        void *memory;
        float v[12] = {0};
        OK(tsr_vk_frames_create(vk, 2, 2, TSR_F32, 1, &f));
        s = fill_frame(vk, f, v, &memory);
        OK(tsr_vk_submit(vk));
        tsr_vk_slab_destroy(vk, &s);
        tsr_vk_frames_destroy(vk, &f);
        tsr_mem_free(memory);
        tsr_vk_destroy(&vk);
        if (i == 1)
            before = open_fds();
    }
    cr_assert_eq(open_fds(), before);
    no_leaks();
}

/* ---------------------------------------------------------------- failing calls */

/* Everything once; on failure, whatever was made is destroyed. */
static tsr_status use_all(void) {
    tsr_status status;
    tsr_vk *vk = NULL;
    tsr_vk_slab *s = NULL, *shared = NULL, *back = NULL;
    tsr_vk_frames *f = NULL;
    tsr_vk_timeline *t = NULL;
    tsr_vk_params params = {.index = -1, .validation = true};
    void *p = tsr_mem_alloc(4096);
    memset(p, 0, 4096);
    TSR_TRY(tsr_vk_create(&vk, &params));
    TSR_TRY(tsr_vk_timeline_create(vk, false, &t));
    TSR_TRY(tsr_vk_slab_host(vk, p, 4096, &s, NULL));
    if (vk->memory_export && vk->memory_import) {
        tsr_handle handle;
        size_t bytes;
        TSR_TRY(tsr_vk_slab_export(vk, 4096, &shared, &handle, &bytes));
        TSR_TRY(tsr_vk_slab_fd(vk, handle, bytes, &back));
    }
    TSR_TRY(tsr_vk_frames_create(vk, 8, 8, TSR_F16, 2, &f));
    for (int i = 0; i < 2; i++) {
        TSR_TRY(tsr_vk_blend_tile(
            vk, &(tsr_vk_blend){.slab = s, .dtype = TSR_F32, .width = 8, .height = 8, .frames = f, .first = true}));
        TSR_TRY(tsr_vk_resolve(vk, f, 0, 0, TSR_PIXELS_RGB8, true));
        TSR_TRY(tsr_vk_submit(vk));
    }
    uint64_t value;
    TSR_TRY(tsr_vk_timeline_signal(vk, t, 1));
    TSR_TRY(tsr_vk_timeline_value(vk, t, &value));
error:
    if (vk) {
        tsr_vk_timeline_destroy(vk, &t);
        tsr_vk_frames_destroy(vk, &f);
        tsr_vk_slab_destroy(vk, &back);
        tsr_vk_slab_destroy(vk, &shared);
        tsr_vk_slab_destroy(vk, &s);
    }
    tsr_vk_destroy(&vk);
    tsr_mem_free(p);
    return status;
}

Test(failing, at_every_call_is_one_clear_line_and_no_leak) {
    drop(make(false));
    OK(use_all());
    int before = open_fds(), sites = 0, survived = 0;
    for (bool over = false; !over; sites++) {
        tsr_vk_fail_at(sites);
        tsr_status status = use_all();
        over = tsr_vk_fail_at(-1) >= 0; /* the call that was to fail never came */
        if (over)
            break;
        survived += status == TSR_OK; /* importing pages: copied instead */
        cr_assert(status == TSR_OK || status == TSR_ERR_DEVICE, "site %d: %s", sites, tsr_last_error());
        if (status != TSR_OK)
            cr_assert(strstr(tsr_last_error(), "lost in vk"), "%s", tsr_last_error());
        cr_assert_eq(open_fds(), before, "site %d", sites);
        cr_assert_eq(said, 0, "site %d", sites);
    }
    cr_assert_gt(sites, 60);
    cr_assert_leq(survived, 4);
    no_leaks();
}
