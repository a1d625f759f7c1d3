/* The engine: which backend, the Vulkan device, and the plan that is ready to run. */
#include "session/cache_folder.h"
#include "session/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* CUDA where it is asked for; for auto, where it is to be had, and else why not. */
static tsr_status backend_create(tsr_backend **out, const tsr_engine_params *params, char no_cuda[256]) {
    if (params->device != TSR_DEVICE_CPU) {
        tsr_status status = tsr_cuda_create(out, params->device_index);
        if (status == TSR_OK || params->device == TSR_DEVICE_CUDA)
            return status;
        tsr_log(TSR_LOG_DEBUG, "no CUDA device: %s", tsr_last_error());
        snprintf(no_cuda, 256, "%s", tsr_last_error());
    }
    return tsr_cpu_create(out, &(tsr_cpu_params){.threads = params->threads, .reference = params->reference});
}

static void log_line(void *user, const char *key, const char *value) {
    (void)user;
    tsr_log(TSR_LOG_INFO, "[BLACKWELL_ENGINE] %s: %s", key, value);
}

tsr_status tsr_engine_wrap(tsr_engine **out, tsr_backend *backend, const tsr_engine_params *params) {
    tsr_engine *e = calloc(1, sizeof *e);
    *out = e;
    if (!e) {
        backend->v->destroy(backend);
        return tsr_fail(TSR_ERR_MEMORY, "engine: no memory");
    }
    e->params = *params;
    e->backend = backend;
    atomic_init(&e->cancel, false);
    atomic_init(&e->cancelled, false);
    atomic_init(&e->users, 1);
    pthread_mutex_init(&e->lock, NULL);
    backend->cancel = &e->cancel;
    backend->kept = tsr_cache_read;
    backend->keep = tsr_cache_write;
    return TSR_OK;
}

tsr_status tsr_engine_create(tsr_engine **out, const tsr_engine_params *params) {
    *out = NULL;
    if ((unsigned)params->device > TSR_DEVICE_CUDA || params->threads < 0)
        return tsr_fail(
            TSR_ERR_ARGUMENT, "engine: no such device or number of threads; start from TSR_ENGINE_PARAMS_DEFAULT");
    tsr_backend *backend = NULL;
    char no_cuda[256] = "";
    tsr_status status = backend_create(&backend, params, no_cuda);
    if (status != TSR_OK)
        return status;
    status = tsr_engine_wrap(out, backend, params);
    if (status != TSR_OK)
        return status;
    memcpy((*out)->no_cuda, no_cuda, sizeof no_cuda);
    backend->v->report(backend, log_line, NULL);
    return TSR_OK;
}

void tsr_engine_keep(tsr_engine *e) {
    atomic_fetch_add(&e->users, 1);
}

void tsr_engine_destroy(tsr_engine **engine) {
    tsr_engine *e = *engine;
    *engine = NULL;
    if (!e || atomic_fetch_sub(&e->users, 1) > 1)
        return;
    tsr_engine_forget(e, NULL);
    tsr_engine_end_sharing(e);
    tsr_vk_destroy(&e->vk);
    e->backend->v->destroy(e->backend);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

tsr_status tsr_engine_vulkan(tsr_engine *e) {
    if (e->vk)
        return TSR_OK;
    return tsr_vk_create(&e->vk, &(tsr_vk_params){
                                     .index = e->params.vulkan_index,
                                     .uuid = e->backend->has_uuid ? e->backend->uuid : NULL,
                                     .validation = e->params.validation,
                                     .no_host_import = e->params.no_host_import,
                                 });
}

tsr_status tsr_engine_report(tsr_engine *e, tsr_line_fn line, void *user) {
    e->backend->v->report(e->backend, line, user);
    if (e->no_cuda[0])
        line(user, "no cuda", e->no_cuda);
    if (tsr_engine_vulkan(e) == TSR_OK) {
        tsr_vk_report(e->vk, line, user);
        tsr_engine_report_slots(e, line, user);
    } else {
        line(user, "Vulkan device", tsr_last_error()); /* what is missing is what the report is for */
    }
    return TSR_OK;
}

void tsr_engine_forget(tsr_engine *e, const tsr_plan *plan) {
    pthread_mutex_lock(&e->lock);
    if (e->exec && (!plan || plan == e->exec_plan)) {
        e->backend->v->exec_destroy(e->backend, &e->exec);
        e->exec_plan = NULL;
        e->exec_bytes = (tsr_memory){0};
    }
    pthread_mutex_unlock(&e->lock);
}

static tsr_memory used(void) {
    return (tsr_memory){(int64_t)tsr_mem_used(), (int64_t)tsr_mem_host_used()};
}

static tsr_memory less(tsr_memory a, tsr_memory b) {
    return (tsr_memory){a.device - b.device, a.host - b.host};
}

tsr_memory tsr_engine_memory_others(tsr_engine *e) {
    pthread_mutex_lock(&e->lock);
    tsr_memory others = less(used(), e->exec_bytes);
    pthread_mutex_unlock(&e->lock);
    return others;
}

tsr_memory tsr_engine_memory_before(tsr_engine *e, const tsr_plan *plan) {
    pthread_mutex_lock(&e->lock);
    bool ready = e->exec_plan == plan;
    pthread_mutex_unlock(&e->lock);
    if (!ready)
        tsr_engine_forget(e, NULL);
    tsr_memory others = tsr_engine_memory_others(e);
    tsr_mem_reset_peak();
    return others;
}

/* What is ready of another plan, if the backend can make use of it; else that goes. */
static tsr_exec *take_ready(tsr_engine *e, const tsr_plan *plan, tsr_memory *bytes) {
    pthread_mutex_lock(&e->lock);
    bool turns = e->exec && e->backend->v->turn && e->exec_plan->half == plan->half;
    tsr_exec *x = turns ? e->exec : NULL;
    *bytes = turns ? e->exec_bytes : (tsr_memory){0};
    if (turns) {
        e->exec = NULL;
        e->exec_plan = NULL;
        e->exec_bytes = (tsr_memory){0};
    }
    pthread_mutex_unlock(&e->lock);
    tsr_engine_forget(e, NULL);
    return x;
}

tsr_status tsr_engine_prepare(tsr_engine *e, const tsr_plan *plan, tsr_exec **out) {
    pthread_mutex_lock(&e->lock);
    *out = e->exec_plan == plan ? e->exec : NULL;
    pthread_mutex_unlock(&e->lock);
    if (*out)
        return TSR_OK;
    tsr_memory ready;
    *out = take_ready(e, plan, &ready);
    tsr_memory before = less(used(), ready);
    tsr_status status =
        *out ? e->backend->v->turn(e->backend, plan, out) : e->backend->v->prepare(e->backend, plan, out);
    if (status != TSR_OK)
        return status;
    pthread_mutex_lock(&e->lock);
    e->exec = *out;
    e->exec_plan = plan;
    e->exec_bytes = less(used(), before);
    pthread_mutex_unlock(&e->lock);
    return TSR_OK;
}

void tsr_cancel(tsr_engine *e) {
    atomic_store(&e->cancelled, true);
    atomic_store(&e->cancel, true);
}
