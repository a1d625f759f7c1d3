#include "backend/cpu/rates.h"
#include "backend/cpu/machine.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { FRESH = 3600 }; /* seconds */

double tsr_cpu_gemm_rate(const tsr_cpu *cpu, int m, int n, int k) {
    enum { MOST = 16 << 20 }; /* elements of the left matrix: more rows change nothing but memory */
    tsr_sgemm_fn gemm = tsr_tier_gemm(cpu->tiers);
    double best = INFINITY, seconds = 0;
    if ((double)m * k > MOST)
        m = MOST / k > 256 ? MOST / k : 256;
    size_t left = (size_t)m * (size_t)k, right = (size_t)k * (size_t)n;
    float *x = malloc((left + right + (size_t)m * (size_t)n) * sizeof *x);
    if (!x)
        return 0;
    float *w = x + left, *y = w + right;
    for (float *v = x; v < y; v++)
        *v = (float)((v - x) % 17) / 16 - 0.5f;
    tsr_threads_apply();
    for (int i = 0; i < 5 && (i < 2 || seconds < 0.2); i++) { /* the first run makes code and threads */
        double begin = tsr_now();
        gemm(m, n, k, x, k, w, n, 0, y, n);
        double took = tsr_now() - begin;
        best = fmin(best, took);
        seconds += took;
    }
    free(x);
    return 2.0 * m * n * k / best;
}

static void file_name(const tsr_cpu *cpu, char name[192]) {
    char machine[128];
    tsr_machine_name(machine);
    snprintf(name, 192, "rates-%s-%d-%s", machine, tsr_threads(), tsr_tier_at(cpu->tiers - 1)->name);
    for (char *s = name; *s; s++)
        if (!isalnum((unsigned char)*s) && *s != '.')
            *s = '-';
}

static bool sane(double rate) {
    return rate > 1e6 && rate < 1e18;
}

/* Whether what was kept is fresh; *gemm and *bandwidth are 0 where nothing was. */
static bool recall(const tsr_cpu *cpu, const char *name, double *gemm, double *bandwidth) {
    char *text = cpu->base.kept ? cpu->base.kept(name) : NULL;
    long long when = 0, now = (long long)time(NULL);
    bool found = text && sscanf(text, "tessera rates 1 %lld %lf %lf", &when, gemm, bandwidth) == 3 && sane(*gemm) &&
                 sane(*bandwidth);
    free(text);
    if (!found)
        *gemm = *bandwidth = 0;
    return found && when <= now && now - when < FRESH;
}

/* Plans follow from rates, and should not change from day to day: the same machine a little faster is no news. */
static double better(double old, double now) {
    return now > 1.1 * old ? now : old;
}

void tsr_cpu_find_rates(tsr_cpu *cpu) {
    char name[192], text[128];
    double gemm = 0, bandwidth = 0;
    if (cpu->gemm > 0 && cpu->bandwidth > 0)
        return;
    file_name(cpu, name);
    if (!recall(cpu, name, &gemm, &bandwidth)) {
        gemm = better(gemm, tsr_cpu_gemm_rate(cpu, 512, 512, 512));
        bandwidth = better(bandwidth, tsr_machine_bandwidth());
        snprintf(text, sizeof text, "tessera rates 1\n%lld %.4e %.4e\n", (long long)time(NULL), gemm, bandwidth);
        sscanf(text, "tessera rates 1 %*d %lf %lf", &gemm, &bandwidth); /* what the next start will read */
        if (cpu->base.keep)
            cpu->base.keep(name, text);
    }
    cpu->gemm = gemm;
    cpu->bandwidth = bandwidth;
}
