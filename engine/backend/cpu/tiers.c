#include "backend/cpu/ref.h"
#include "backend/cpu/simd.h"
#ifdef TSR_ONEDNN
#include "backend/cpu/onednn.h"
#endif

static const tsr_tier *const all[] = {
    &tsr_tier_c,
    &tsr_tier_baseline,
#ifdef __x86_64__
    &tsr_tier_avx2,
    &tsr_tier_avx512,
    &tsr_tier_avx2_u8,
#endif
#ifdef TSR_ONEDNN
    &tsr_tier_onednn,
    &tsr_tier_vnni,
#endif
#ifdef __x86_64__
    &tsr_tier_avx2_f32,
#endif
};

void tsr_io_choose_range(const tsr_op_io *io) {
    const tsr_buffer *in = &io->program->buffer[io->op->in.buf];
    double count = (double)in->c / TSR_GROUPS * tsr_picture_rows(in) * in->w;
    tsr_code_range before = {0};
    if (io->op->cache >= 0)
        before = *io->cache_range;
    *io->range = tsr_range_choose(io->stats_in, io->op->in.nt, count, in->c, tsr_planes(io->program, io->op), io->gamma,
        io->beta, io->gain, before);
}

const tsr_tier *tsr_tier_at(int i) {
    for (size_t j = 0; j < sizeof all / sizeof *all; j++)
        if ((!all[j]->here || all[j]->here()) && i-- == 0)
            return all[j];
    return NULL;
}

const tsr_tier *tsr_tier_for(int tiers, const tsr_program *p, const tsr_op *op) {
    for (int i = tiers - 1; i > 0; i--) {
        const tsr_op_impl *impl = &tsr_tier_at(i)->op[op->kind];
        if (impl->run && (!impl->can || impl->can(p, op)))
            return tsr_tier_at(i);
    }
    return tsr_tier_at(0);
}

tsr_sgemm_fn tsr_tier_gemm(int tiers) {
    while (tiers > 1 && !tsr_tier_at(tiers - 1)->gemm)
        tiers--;
    return tsr_tier_at(tiers - 1)->gemm;
}

tsr_codes_gemm_fn tsr_tier_codes_gemm(int tiers) {
    while (tiers > 1 && !tsr_tier_at(tiers - 1)->codes_gemm)
        tiers--;
    return tsr_tier_at(tiers - 1)->codes_gemm;
}
