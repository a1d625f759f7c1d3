#include "backend/cuda/driver.h"

#include <dlfcn.h>
#include <pthread.h>

tsr_cu_api tsr_cu;

enum { NEEDED = 13000 }; /* CUDA 13.0: what the kernels were compiled with; driver branch r580 */

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x) /* expands the version first: "cuMemGetInfo_v2" */

static void *symbol(void *library, const char *name) {
    return dlsym(library, name);
}

/* An old driver lacks newer functions, so its version comes first. */
static tsr_status check_version(void *library) {
    CUresult (*version)(int *) = NULL;
    *(void **)&version = symbol(library, "cuDriverGetVersion");
    if (!version || version(&tsr_cu.version) != CUDA_SUCCESS)
        return tsr_fail(
            TSR_ERR_UNSUPPORTED, "cuda: libcuda.so.1 does not say its version; reinstall the NVIDIA driver");
    if (tsr_cu.version < NEEDED)
        return tsr_fail(TSR_ERR_UNSUPPORTED,
            "cuda: the NVIDIA driver here speaks CUDA %d.%d; update it to CUDA 13 (r580) or newer",
            tsr_cu.version / 1000, tsr_cu.version % 1000 / 10);
    return TSR_OK;
}

static tsr_status find_functions(void *library) {
    const char *missing = NULL;
#define X(f)                                                                                                           \
    *(void **)&tsr_cu.p_##f = symbol(library, TEXT(f));                                                                \
    if (!tsr_cu.p_##f)                                                                                                 \
        missing = TEXT(f);
    TSR_CU_FUNCTIONS(X)
#undef X
    if (missing)
        return tsr_fail(TSR_ERR_UNSUPPORTED, "cuda: libcuda.so.1 has no %s; reinstall the NVIDIA driver", missing);
    return TSR_OK;
}

static tsr_status load(void) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return tsr_fail(
            TSR_ERR_UNSUPPORTED, "cuda: no NVIDIA driver here (libcuda.so.1); install one, or use --device cpu");
    tsr_status status;
    TSR_TRY(check_version(library));
    TSR_TRY(find_functions(library));
    CUresult r = tsr_cu.p_cuInit(0);
    if (r == CUDA_ERROR_NO_DEVICE)
        TSR_TRY(tsr_fail(TSR_ERR_UNSUPPORTED, "cuda: a driver, but no NVIDIA GPU that it can use; use --device cpu"));
    TSR_TRY(tsr_cu_check(r, "starting the driver"));
    return TSR_OK; /* never closed: the driver keeps threads of its own */
error:
    dlclose(library);
    return status;
}

tsr_status tsr_cu_load(void) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static bool loaded;
    tsr_status status = TSR_OK;
    pthread_mutex_lock(&lock);
    if (!loaded)
        status = load();
    loaded = status == TSR_OK;
    pthread_mutex_unlock(&lock);
    return status;
}

tsr_status tsr_cu_check(CUresult r, const char *what) {
    const char *name = NULL, *text = NULL;
    if (r == CUDA_SUCCESS)
        return TSR_OK;
    tsr_cu.p_cuGetErrorName(r, &name);
    tsr_cu.p_cuGetErrorString(r, &text);
    return tsr_fail(r == CUDA_ERROR_OUT_OF_MEMORY ? TSR_ERR_MEMORY : TSR_ERR_DEVICE, "cuda: %s: %s (%s)", what,
        text ? text : "unknown error", name ? name : "no name");
}
