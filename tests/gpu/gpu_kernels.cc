/*
 * Every kernel by itself on the device, against the references and with the bounds of the shim's tests: their cases,
 * and those ops of kernelcheck's that kernels take, in each precision and by each tile shape.
 *
 *     gpu_kernels [--small]     --small: a few of each, for the driver without a GPU
 *
 * Status 0: all agree, 1: one does not, 2: the command is wrong, 77: no GPU.
 *
 * A kernel that faults or hangs ends its process, for nothing else would run in it: the next one goes on after it.
 */
#include "device.h"

extern "C" {
#include "../kernel_spec.h"
}

#include <csignal>
#include <cstdio>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { GOOD = 0, BAD = 1, WRONG = 2, LOST = 3, CANNOT = 77 };
enum { SECONDS = 20 /* of a case, references included */, TRIES = 2 /* of a kernel that faults */, SAID = 20 };

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
            c.in = in, c.out = out, c.frames = s.nt, c.pixels = s.h * s.w, c.c = s.cin, c.silu = s.silu;
            c.planes = out == TSR_ELEM_U8 ? s.cout / s.cin : 1;
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
        else if (s.kind == TSR_OP_NORM && !s.ny && !s.in_place && s.cin % 32 == 0)
            add_norms(all, s);
        else if (s.kind == TSR_OP_ATTENTION && !s.ny)
            add_attention(all, s);
    }
    return all;
}

/* n: of each so many one is run. */
static void append(cases &all, const cases &more, size_t n) {
    for (size_t i = 0; i < more.size(); i += n)
        all.push_back(more[i]);
}

/* What the processes share. */
struct progress {
    size_t next;    /* the case after the one in hand */
    char name[160]; /* of that in hand */
    int good, bad, cannot, left;
    int faults[TSR_CONV_SHAPE_COUNT + 1][16]; /* of kernels, by shape and type; that in hand counts until it agrees */
};

static void does_not_agree(progress *p, const char *why) {
    if (++p->bad <= SAID)
        std::printf("- %s: %s\n", p->name, why);
}

/* false: the device is lost. */
static bool run_case(progress *p, const one_case &c) {
    if (!device_has(c)) {
        p->cannot++;
        return true;
    }
    int *faults = &p->faults[c.shape][c.type];
    if (*faults == TRIES) {
        p->left++;
        return true;
    }
    std::snprintf(p->name, sizeof p->name, "%s", c.name.c_str());
    ++*faults;
    alarm(SECONDS);
    std::string wrong = c.check();
    alarm(0);
    bool lost = !wrong.empty() && device_lost();
    *faults -= !lost;
    if (wrong.empty())
        p->good++;
    else
        does_not_agree(p, wrong.c_str());
    return !lost;
}

/* A process: the cases that are left, until the device is lost. */
static int live(progress *p, bool small) {
    std::string name;
    bool first = p->next == 0;
    tsr_status status = device_open(&name);
    if (status != TSR_OK || first)
        std::printf("- %s\n", name.c_str());
    if (status != TSR_OK)
        return status == TSR_ERR_UNSUPPORTED ? CANNOT : BAD;
    cases all;
    append(all, cases_of(""), small ? 11 : 1);
    append(all, of_kernelcheck(), small ? 29 : 1);
    while (p->next < all.size())
        if (!run_case(p, all[p->next++]))
            return LOST;
    std::printf(
        "- sums of convolutions nearest to what is allowed, in parts of the outputs' root mean square (allowed): %s\n",
        sum_errors().c_str());
    device_close();
    return GOOD;
}

static int in_a_process(progress *p, bool small) {
    size_t begin = p->next;
    int status = 0;
    std::fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        status = live(p, small);
        std::fflush(stdout);
        _exit(status);
    }
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        return BAD;
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    does_not_agree(p, WTERMSIG(status) == SIGALRM ? "it hangs" : "it ended its process");
    return p->next > begin ? LOST : BAD;
}

int main(int argc, char **argv) {
    bool small = argc > 1 && std::strcmp(argv[1], "--small") == 0;
    if (argc > (small ? 2 : 1)) {
        std::fprintf(stderr, "gpu_kernels: '%s' is no option; there is --small\n", argv[small ? 2 : 1]);
        return WRONG;
    }
    std::setvbuf(stdout, nullptr, _IOLBF, 0); /* what ends early has said what it saw */
    void *shared = mmap(nullptr, sizeof(progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return BAD;
    progress *p = static_cast<progress *>(shared);
    int status;
    while ((status = in_a_process(p, small)) == LOST)
        ;
    if (status == CANNOT && p->next == 0)
        return CANNOT;
    std::printf("- %d agree, %d do not; %d left out for instructions that this GPU lacks, %d after faults of their "
                "kernel\n",
        p->good, p->bad, p->cannot, p->left);
    return status == GOOD && p->bad == 0 ? GOOD : BAD;
}
