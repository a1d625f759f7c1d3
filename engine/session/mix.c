#include "session/mix.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- kept as text */

void tsr_losses_print(char *text, size_t size, const tsr_losses *l) {
    size_t n = (size_t)snprintf(text, size, "%d %.9g\n", l->blocks, l->whole);
    for (int b = 0; b < l->blocks && n < size; b++)
        n += (size_t)snprintf(text + n, size - n, "%.9g\n", l->block[b]);
}

static bool mixed(const tsr_half *half, int b) {
    return half->block[b].kind == TSR_BLOCK_RESNET;
}

static int blocks_of(const tsr_half *half) {
    return half->blocks < TSR_MIX_BLOCKS ? half->blocks : TSR_MIX_BLOCKS;
}

static bool take(char **at, double *out) {
    char *end;
    *out = strtod(*at, &end);
    bool found = end != *at && isfinite(*out) && *out >= 0;
    *at = end;
    return found;
}

bool tsr_losses_parse(const char *text, const tsr_half *decoder, tsr_losses *out) {
    char *at;
    out->blocks = blocks_of(decoder);
    if (strtol(text, &at, 10) != out->blocks || !take(&at, &out->whole))
        return false;
    for (int b = 0; b < out->blocks; b++)
        if (!take(&at, &out->block[b]))
            return false;
    return true;
}

/* ---------------------------------------------------------------- choosing */

/* FLOPs of every block's 3x3x3 convs, for comparing: of the decoder's later steps. */
static tsr_status work_of(const tsr_half *decoder, double work[TSR_MIX_BLOCKS]) {
    tsr_program *p;
    tsr_program_params params = {.step = TSR_STEP_LATER,
        .h = 4,
        .w = 4,
        .join_heads = true,
        .slice_level = decoder->levels,
        .numerics = {TSR_PRECISION_F32, TSR_F32, TSR_F32, TSR_F32, TSR_F32, NULL, TSR_F32}};
    tsr_status status = tsr_program_create(&p, decoder, &params);
    if (status != TSR_OK)
        return status;
    memset(work, 0, TSR_MIX_BLOCKS * sizeof *work);
    for (int i = 0; i < p->ops; i++)
        for (int b = 0; b < blocks_of(decoder); b++)
            if (p->op[i].kind == TSR_OP_CONV && mixed(decoder, b) &&
                (p->op[i].layer == decoder->block[b].layer[1] || p->op[i].layer == decoder->block[b].layer[3]))
                work[b] += tsr_op_flops(p, &p->op[i]);
    tsr_program_destroy(&p);
    return TSR_OK;
}

enum { STEPS = 4000 };          /* that what may be lost is cut into */
static const double MARGIN = 1; /* dB: other pictures lose more or less than the measured piece */

typedef struct best { /* of the sets that lose at most so many steps */
    double work;
    uint64_t narrow;
} best;

/* A knapsack. Losses round up. */
static uint64_t fill(best *at, const tsr_losses *l, const double *work, double step) {
    for (int b = 0; b < l->blocks; b++) {
        double cost = ceil(l->block[b] / step);
        for (int s = STEPS; work[b] > 0 && cost <= s; s--) {
            const best *before = &at[s - (int)cost];
            if (before->work + work[b] > at[s].work)
                at[s] = (best){before->work + work[b], before->narrow | (uint64_t)1 << b};
        }
    }
    return at[STEPS].narrow;
}

tsr_status tsr_mix_choose(const tsr_losses *l, const tsr_half *decoder, double quality, tsr_mix *out) {
    double work[TSR_MIX_BLOCKS], sum = 0, lost = 0;
    best *at = calloc(STEPS + 1, sizeof *at);
    tsr_status status = at ? work_of(decoder, work) : tsr_fail(TSR_ERR_MEMORY, "plan: out of memory");
    *out = (tsr_mix){.quality = quality};
    if (status == TSR_OK) {
        for (int b = 0; b < l->blocks; b++)
            sum += l->block[b];
        double more = sum > 0 && l->whole > sum ? l->whole / sum : 1, allowed = 4 * pow(10, -(quality + MARGIN) / 10);
        uint64_t narrow = fill(at, l, work, allowed / more / STEPS);
        for (int b = 0; b < l->blocks; b++) {
            if (narrow >> b & 1)
                lost += more * l->block[b];
            else if (mixed(decoder, b))
                out->wide |= (uint64_t)1 << b;
        }
        out->expected = narrow ? 10 * log10(4 / lost) : INFINITY;
    }
    free(at);
    return status;
}
