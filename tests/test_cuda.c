/* The CUDA backend where there is no NVIDIA driver. What it does where there is one: tests/cuda. */
#include "session/session.h"

#include <criterion/criterion.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static void needs_no_driver(void) {
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (driver)
        cr_skip_test("this machine has an NVIDIA driver");
}

Test(cuda, says_in_one_line_what_is_missing, .init = needs_no_driver) {
    tsr_engine_params params = TSR_ENGINE_PARAMS_DEFAULT;
    tsr_engine *e = NULL;
    params.device = TSR_DEVICE_CUDA;
    cr_assert_eq(tsr_engine_create(&e, &params), TSR_ERR_UNSUPPORTED);
    cr_assert_null(e);
    const char *error = tsr_last_error();
    cr_assert(strncmp(error, "cuda: ", 6) == 0 && !strchr(error, '\n'), "%s", error);
    cr_assert(strstr(error, "driver") || strstr(error, "nvcc"), "%s", error);
    cr_assert(strstr(error, "--device cpu"), "%s", error);
}

static void keep_reason(void *user, const char *key, const char *value) {
    if (strcmp(key, "no cuda") == 0)
        snprintf(user, 256, "%s", value);
}

Test(cuda, any_device_is_the_cpu_and_the_report_says_why, .init = needs_no_driver) {
    tsr_engine_params params = TSR_ENGINE_PARAMS_DEFAULT;
    tsr_engine *e = NULL;
    char reason[256] = "";
    cr_assert_eq(tsr_engine_create(&e, &params), TSR_OK, "%s", tsr_last_error());
    cr_assert_str_eq(e->backend->v->name, "cpu");
    cr_assert_eq(tsr_engine_report(e, keep_reason, reason), TSR_OK);
    cr_assert(strncmp(reason, "cuda: ", 6) == 0, "'%s'", reason);
    tsr_engine_destroy(&e);
}
