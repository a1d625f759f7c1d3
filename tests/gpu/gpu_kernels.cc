/*
 * Every kernel by itself on the device, against the references and with the bounds of the shim's tests: their cases,
 * and those ops of kernelcheck's that kernels take, in each precision and by each tile shape.
 *
 *     gpu_kernels [--small]     --small: a few of each, for the driver without a GPU
 *
 * Status 0: all agree, 1: one does not, 2: the command is wrong, 77: no GPU.
 */
#include "device.h"

extern "C" {
#include "../kernel_spec.h"
}

#include <cstdio>

enum { GOOD = 0, BAD = 1, WRONG = 2, CANNOT = 77 };

static conv_case conv_of(const spec &s, tsr_conv_shape shape, tsr_dtype in) {
    conv_case c = conv_base(shape, in);
    c.outputs = s.nt, c.kt = s.kt, c.st = s.st, c.past = s.kt - s.st > 0 ? s.kt - s.st : 0;
    c.h = s.h, c.w = s.w, c.cin = s.cin, c.cout = s.cout;
    c.pad = s.top, c.classes = s.phases == 4 ? 4 : 1, c.out_dt = s.out_dt, c.accumulate = s.accumulate;
    c.y0 = s.y0, c.rows = s.ny;
    if (shape == TSR_CONV_K33O && s.cout % 8)
        c.out = TSR_ELEM_F32;
    return c;
}

static void add_convs(cases &all, const spec &s) {
    tsr_kernel k = {};
    k.cin = s.cin, k.cout = s.cout, k.kt = s.kt, k.kh = k.kw = s.k, k.st = s.st, k.sy = k.sx = s.s;
    k.pad_top = k.pad_left = s.top, k.phases = s.phases, k.classes = s.phases == 4 ? 4 : 1;
    for (tsr_dtype in : {TSR_F16, TSR_BF16, TSR_E4M3, TSR_U8}) {
        tsr_conv_shape shape[TSR_CONV_CHOICES];
        int n = tsr_conv_choices(&k, in, device_hopper(), shape);
        for (int i = 0; i < n; i++)
            add(all, conv_of(s, shape[i], in));
    }
}

static void add_norms(cases &all, const spec &s) {
    for (tsr_elem in : {TSR_ELEM_F16, TSR_ELEM_BF16})
        for (tsr_elem out : {TSR_ELEM_F16, TSR_ELEM_BF16, TSR_ELEM_E4M3, TSR_ELEM_U8}) {
            norm_case c;
            c.in = in, c.out = out, c.frames = s.nt, c.pixels = s.h * s.w, c.c = s.cout, c.silu = s.silu;
            add(all, c);
        }
}

static void add_attention(cases &all, const spec &s) {
    for (bool bf16 : {false, true}) {
        attention_case c;
        c.bf16 = bf16, c.frames = s.nt, c.tokens = s.h * s.w, c.c = s.cout;
        add(all, c);
    }
}

/* Of kernelcheck's ops; a kernel takes whole pictures and channels by 8, norms groups of 32. */
static cases of_kernelcheck() {
    cases all;
    for (int i = 0; i < kernel_spec_count; i++) {
        const spec &s = kernel_specs[i];
        if (s.whole) /* bands are the CPU's */
            continue;
        if (s.kind == TSR_OP_CONV)
            add_convs(all, s);
        else if (s.kind == TSR_OP_NORM && !s.ny && !s.in_place && s.cout % 32 == 0)
            add_norms(all, s);
        else if (s.kind == TSR_OP_ATTENTION && !s.ny)
            add_attention(all, s);
    }
    return all;
}

/* n: of each so many one is run. */
static void run(const char *what, const cases &all, size_t n, int *bad) {
    int good = 0, cannot = 0;
    for (size_t i = 0; i < all.size(); i += n) {
        if (!device_has(all[i])) {
            cannot++;
            continue;
        }
        std::string wrong = all[i].check();
        if (wrong.empty())
            good++;
        else if (++*bad <= 20)
            std::printf("- %s: %s\n", all[i].name.c_str(), wrong.c_str());
        std::fflush(stdout);
    }
    std::printf("- %s: %d agree, %d left out for instructions that this GPU lacks\n", what, good, cannot);
}

int main(int argc, char **argv) {
    bool small = argc > 1 && std::strcmp(argv[1], "--small") == 0;
    if (argc > (small ? 2 : 1)) {
        std::fprintf(stderr, "gpu_kernels: '%s' is no option; there is --small\n", argv[small ? 2 : 1]);
        return WRONG;
    }
    std::string name, why = device_open(&name);
    int bad = 0;
    if (!why.empty()) {
        std::printf("- %s\n", why.c_str());
        return CANNOT;
    }
    std::printf("- %s\n", name.c_str());
    run("cases of the shim's tests", cases_of(""), small ? 11 : 1, &bad);
    run("ops of kernelcheck", of_kernelcheck(), small ? 29 : 1, &bad);
    std::printf("- sums of convolutions differ at most, in parts of the outputs' root mean square (allowed): %s\n",
        sum_errors().c_str());
    device_close();
    std::printf("- %d do not agree\n", bad);
    return bad ? BAD : GOOD;
}
