/*
 * How slots get from a GPU's backend to Vulkan, settled by trying once: a pattern goes there and back.
 *
 *     exported   the backend allocates and exports, Vulkan imports
 *     imported   Vulkan allocates and exports, the backend imports
 *     host       the backend writes to pinned host memory, which Vulkan imports or copies
 *
 * On the first two, two timeline semaphores of Vulkan's are shared where the driver can: the backend signals `lane`
 * when a slot is written, Vulkan signals its progress when it is read, and the host waits for neither.
 */
#include "session/session.h"

#include <stdio.h>
#include <string.h>

static const double SIGNAL_SECONDS = 2; /* after which a signal counts as lost */

static const char *const HOW[] = {
    [TSR_WAY_EXPORTED] = "device memory that the GPU's backend exports and Vulkan imports",
    [TSR_WAY_IMPORTED] = "device memory that Vulkan exports and the GPU's backend imports",
    [TSR_WAY_HOST] = "host memory",
};

/* ---------------------------------------------------------------- slabs */

static tsr_status export_slab(tsr_engine *e, size_t bytes, tsr_slab *out) {
    tsr_vk_slab *slab = NULL;
    tsr_handle handle = TSR_NO_HANDLE;
    size_t export_bytes = 0;
    tsr_status status = tsr_vk_slab_export(e->vk, bytes, &slab, &handle, &export_bytes);
    if (status != TSR_OK)
        return status;
    status = e->backend->v->slab_import(e->backend, handle, bytes, export_bytes, tsr_vk_exports_dedicated(e->vk), out);
    if (status != TSR_OK)
        tsr_vk_slab_destroy(e->vk, &slab);
    else
        out->exporter = slab;
    return status;
}

tsr_status tsr_engine_slab_alloc(tsr_engine *e, size_t bytes, tsr_slab *out) {
    return e->way == TSR_WAY_IMPORTED ? export_slab(e, bytes, out) : e->backend->v->slab_alloc(e->backend, bytes, out);
}

void tsr_engine_slab_free(tsr_engine *e, tsr_slab *slab) {
    tsr_vk_slab *exporter = slab->exporter;
    if (slab->bytes)
        e->backend->v->slab_free(e->backend, slab);
    if (exporter) /* who made it frees last */
        tsr_vk_slab_destroy(e->vk, &exporter);
}

tsr_status tsr_engine_import(tsr_engine *e, tsr_slab *slab, tsr_vk_slab **out, const char **how) {
    bool imported = false;
    tsr_status status = TSR_OK;
    switch (slab->kind) {
    case TSR_SLAB_HOST:
        status = tsr_vk_slab_host(e->vk, slab->host, slab->export_bytes, out, &imported);
        *how = imported ? "host pages that Vulkan imports" : "host pages, copied to Vulkan's memory";
        break;
    case TSR_SLAB_EXPORTED:
        status = tsr_vk_slab_fd(e->vk, slab->handle, slab->export_bytes, out);
        slab->handle = TSR_NO_HANDLE; /* Vulkan's now, or closed */
        *how = HOW[TSR_WAY_EXPORTED];
        break;
    case TSR_SLAB_IMPORTED:
        *out = slab->exporter;
        *how = HOW[TSR_WAY_IMPORTED];
        break;
    }
    return status;
}

void tsr_engine_let_go(tsr_engine *e, const tsr_slab *slab, tsr_vk_slab **imported) {
    if (*imported && *imported != slab->exporter)
        tsr_vk_slab_destroy(e->vk, imported);
    *imported = NULL;
}

/* ---------------------------------------------------------------- timelines */

static void end_sharing(tsr_engine *e) {
    if (e->lane)
        e->backend->v->unshare(e->backend);
    tsr_vk_timeline_destroy(e->vk, &e->lane);
}

static tsr_status share(tsr_engine *e) {
    tsr_backend *b = e->backend;
    tsr_handle lane = TSR_NO_HANDLE, progress = TSR_NO_HANDLE;
    tsr_status status;
    TSR_TRY(tsr_vk_timeline_create(e->vk, true, &e->lane));
    TSR_TRY(tsr_vk_timeline_export(e->vk, e->lane, &lane));
    status = tsr_vk_timeline_export(e->vk, tsr_vk_progress(e->vk), &progress);
    TSR_TRY(b->v->share(b, lane, progress)); /* takes both, also where there is only one */
    TSR_TRY(status);
    return TSR_OK;
error:
    end_sharing(e);
    return status;
}

/* ---------------------------------------------------------------- the pattern */

enum { SIDE = 24, PATTERN = 3 * SIDE * SIDE, AT = 256 }; /* floats [3][SIDE][SIDE], at byte AT of the slab */

typedef struct probe {
    tsr_slab slab;
    tsr_vk_slab *imported;
    tsr_vk_frames *frames;
    float pattern[PATTERN], seen[PATTERN];
} probe;

/* Written by the backend, blended by Vulkan, as slots are. */
static tsr_status go_there(tsr_engine *e, probe *p) {
    tsr_backend *b = e->backend;
    tsr_vk_blend blend = {.slab = p->imported,
        .slot_at = AT,
        .dtype = TSR_F32,
        .width = SIDE,
        .height = SIDE,
        .frames = p->frames,
        .first = true};
    uint64_t ticket = 0;
    bool done = false;
    size_t bytes = 0;
    tsr_status status;
    for (int i = 0; i < PATTERN; i++)
        p->pattern[i] = (float)((i * 2654435761u) >> 8) - 8e6f;
    TSR_TRY(b->v->slab_write(b, &p->slab, AT, sizeof p->pattern, p->pattern));
    if (e->lane) {
        TSR_TRY(b->v->meet(b, 0, ++e->ready_value));
        blend.wait = e->lane;
        blend.wait_value = e->ready_value;
    } else {
        TSR_TRY(b->v->slab_read(b, &p->slab, AT, sizeof p->seen, p->seen)); /* waits */
    }
    TSR_TRY(tsr_vk_blend_tile(e->vk, &blend));
    TSR_TRY(tsr_vk_resolve(e->vk, p->frames, 0, 0, TSR_PIXELS_RGB_F32, false));
    TSR_TRY(tsr_vk_start(e->vk, &ticket));
    TSR_TRY(tsr_vk_wait(e->vk, ticket, SIGNAL_SECONDS, &done));
    if (!done)
        TSR_TRY(tsr_fail(TSR_ERR_DEVICE, "the GPU's signal did not reach Vulkan in %g s", SIGNAL_SECONDS));
    const void *pixels = tsr_vk_pixels(e->vk, &bytes);
    if (bytes != sizeof p->pattern || memcmp(pixels, p->pattern, bytes) != 0)
        TSR_TRY(tsr_fail(TSR_ERR_UNSUPPORTED, "Vulkan does not see what the GPU's backend wrote"));
error:
    return status;
}

/* Written by Vulkan, read by the backend. */
static tsr_status come_back(tsr_engine *e, probe *p) {
    tsr_backend *b = e->backend;
    const uint32_t word = 0x3fc90fdb;
    uint64_t ticket = 0;
    tsr_status status;
    TSR_TRY(tsr_vk_slab_fill(e->vk, p->imported, AT, sizeof p->seen, word));
    TSR_TRY(tsr_vk_start(e->vk, &ticket));
    if (e->lane)
        TSR_TRY(b->v->meet(b, ticket, 0));
    else
        TSR_TRY(tsr_vk_wait(e->vk, ticket, -1, NULL));
    TSR_TRY(b->v->slab_read(b, &p->slab, AT, sizeof p->seen, p->seen));
    for (int i = 0; i < PATTERN; i++)
        if (memcmp(&p->seen[i], &word, sizeof word) != 0)
            TSR_TRY(tsr_fail(TSR_ERR_UNSUPPORTED, "the GPU's backend does not see what Vulkan wrote"));
error:
    return status;
}

static tsr_status try_way(tsr_engine *e, tsr_way way) {
    probe p = {.slab.handle = TSR_NO_HANDLE};
    const char *how = "";
    tsr_status status;
    e->way = way;
    e->backend->slabs_on_host = false;
    TSR_TRY(tsr_vk_frames_create(e->vk, SIDE, SIDE, TSR_F32, 1, &p.frames));
    TSR_TRY(tsr_engine_slab_alloc(e, AT + sizeof p.pattern, &p.slab));
    if (p.slab.kind == TSR_SLAB_HOST)
        TSR_TRY(tsr_fail(TSR_ERR_UNSUPPORTED, "the GPU's driver exports no memory"));
    TSR_TRY(tsr_engine_import(e, &p.slab, &p.imported, &how));
    TSR_TRY(go_there(e, &p));
    TSR_TRY(come_back(e, &p));
error:
    if (status != TSR_OK)
        e->way = TSR_WAY_HOST;
    tsr_vk_frames_destroy(e->vk, &p.frames);
    tsr_engine_let_go(e, &p.slab, &p.imported);
    tsr_engine_slab_free(e, &p.slab);
    return status;
}

/* With shared timelines, else without. */
static bool works(tsr_engine *e, tsr_way way) {
    e->no_share[0] = '\0';
    if (share(e) == TSR_OK && try_way(e, way) == TSR_OK)
        return true;
    snprintf(e->no_share, sizeof e->no_share, "%s", tsr_last_error());
    bool shared = e->lane;
    end_sharing(e);
    if (try_way(e, way) == TSR_OK) {
        if (shared)
            tsr_log(TSR_LOG_WARN, "shared timelines are not used: %s", e->no_share);
        return true;
    }
    size_t n = strlen(e->no_import);
    snprintf(e->no_import + n, sizeof e->no_import - n, "%s%s: %s", n ? "; " : "",
        way == TSR_WAY_EXPORTED ? "exported by the backend" : "exported by Vulkan", tsr_last_error());
    return false;
}

static void say_it_is_another(tsr_engine *e) {
    char why[224];
    tsr_vk_why_other(e->vk, e->backend->uuid, why, sizeof why);
    snprintf(
        e->no_import, sizeof e->no_import, "Vulkan runs on another device, %s: %s", tsr_vk_device_name(e->vk), why);
}

tsr_status tsr_engine_probe_slots(tsr_engine *e) {
    tsr_backend *b = e->backend;
    if (!b->has_uuid || e->probed)
        return TSR_OK;
    tsr_status status = tsr_engine_vulkan(e);
    if (status != TSR_OK)
        return status;
    e->probed = true;
    if (!tsr_vk_is_uuid(e->vk, b->uuid))
        say_it_is_another(e);
    else if (works(e, TSR_WAY_EXPORTED) || works(e, TSR_WAY_IMPORTED))
        tsr_log(TSR_LOG_INFO, "slots: %s, %s", HOW[e->way], e->lane ? "shared timelines" : "the host waits");
    if (e->way == TSR_WAY_HOST)
        snprintf(e->no_share, sizeof e->no_share, "slots are not in device memory");
    if (e->way != TSR_WAY_EXPORTED)
        b->slabs_on_host = true;
    return TSR_OK;
}

/* Of a CPU, or on the way through host memory: whether Vulkan takes the pages. */
static tsr_status try_pages(tsr_engine *e, const char **how) {
    tsr_slab slab = {.handle = TSR_NO_HANDLE};
    tsr_vk_slab *imported = NULL;
    tsr_status status = tsr_engine_slab_alloc(e, 4096, &slab);
    if (status == TSR_OK)
        status = tsr_engine_import(e, &slab, &imported, how);
    tsr_engine_let_go(e, &slab, &imported);
    tsr_engine_slab_free(e, &slab);
    return status;
}

void tsr_engine_report_slots(tsr_engine *e, tsr_line_fn line, void *user) {
    const char *how = "";
    char text[640];
    tsr_status status = tsr_engine_probe_slots(e);
    if (status == TSR_OK)
        status = try_pages(e, &how);
    snprintf(text, sizeof text, "%s%s%s%s", how, e->way == TSR_WAY_HOST ? "" : ": a pattern went there and back",
        e->no_import[0] ? "; " : "", e->no_import);
    line(user, "slots", status == TSR_OK ? text : tsr_last_error());
    if (status != TSR_OK || !e->backend->has_uuid)
        return;
    snprintf(text, sizeof text, "the host waits for a step before it is blended: %s", e->no_share);
    line(user, "slot timelines", e->lane ? "shared by both: the host waits for neither" : text);
}

void tsr_engine_end_sharing(tsr_engine *e) {
    if (e->vk)
        end_sharing(e);
}
