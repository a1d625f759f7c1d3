#include "backend/cpu/rates.h"
#include "backend/cpu/machine.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { FRESH = 3600 }; /* seconds */

/* A product whose result nobody looks at. */
typedef struct product {
    int m, n, k;
    tsr_sgemm_fn gemm;            /* of f32, */
    tsr_codes_gemm_fn codes_gemm; /* or where not NULL of codes */
    void *x, *w, *y;
} product;

static void fill(const product *p, void *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (p->codes_gemm)
            ((uint8_t *)x)[i] = (uint8_t)(i % 17);
        else
            ((float *)x)[i] = (float)(i % 17) / 16 - 0.5f;
}

static bool product_open(product *p) {
    size_t wide = p->codes_gemm ? 1 : sizeof(float);
    size_t left = (size_t)p->m * (size_t)p->k, right = (size_t)p->k * (size_t)p->n;
    p->x = malloc(left * wide);
    p->w = malloc(right * wide);
    p->y = malloc((size_t)p->m * (size_t)p->n * sizeof(float));
    if (!p->x || !p->w || !p->y)
        return false;
    fill(p, p->x, left);
    fill(p, p->w, right);
    return true;
}

static double product_seconds(const product *p) {
    double begin = tsr_now();
    if (p->codes_gemm)
        p->codes_gemm(p->m, p->n, p->k, p->x, p->w, p->y);
    else
        p->gemm(p->m, p->n, p->k, p->x, p->k, p->w, p->n, 0, p->y, p->n);
    return tsr_now() - begin;
}

static void product_close(product *p) {
    free(p->x);
    free(p->w);
    free(p->y);
}

double tsr_cpu_gemm_rate(const tsr_cpu *cpu, bool codes, int m, int n, int k) {
    enum { MOST = 16 << 20 }; /* elements of the left matrix: more rows change nothing but memory */
    if ((double)m * k > MOST)
        m = MOST / k > 256 ? MOST / k : 256;
    product p = {m, n, k, tsr_tier_gemm(cpu->tiers), codes ? tsr_tier_codes_gemm(cpu->tiers) : NULL, NULL, NULL, NULL};
    double best = INFINITY, seconds = 0;
    if (codes && !p.codes_gemm)
        return 0;
    bool ready = product_open(&p);
    tsr_threads_apply();
    for (int i = 0; ready && i < 5 && (i < 2 || seconds < 0.2); i++) { /* the first run makes code and threads */
        double took = product_seconds(&p);
        best = fmin(best, took);
        seconds += took;
    }
    product_close(&p);
    return 2.0 * m * n * k / best; /* 0 where nothing ran */
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
        gemm = better(gemm, tsr_cpu_gemm_rate(cpu, false, 512, 512, 512));
        bandwidth = better(bandwidth, tsr_machine_bandwidth());
        snprintf(text, sizeof text, "tessera rates 1\n%lld %.4e %.4e\n", (long long)time(NULL), gemm, bandwidth);
        sscanf(text, "tessera rates 1 %*d %lf %lf", &gemm, &bandwidth); /* what the next start will read */
        if (cpu->base.keep)
            cpu->base.keep(name, text);
    }
    cpu->gemm = gemm;
    cpu->bandwidth = bandwidth;
}
