/* Which resnets are worth wide numbers: what each loses in 8 bits, measured once for a model file, and the choice that
 * holds a quality at the least cost. */
#ifndef TSR_MIX_H
#define TSR_MIX_H

#include "plan/plan.h"

typedef struct tsr_losses {  /* mean squared errors against f32, of pictures in -1..1 */
    uint64_t key;            /* the model's, tsr_model_key() */
    tsr_precision precision; /* INT8, FP8; AUTO: nothing is known */
    bool noise;              /* measured on noise; else on a piece of somebody's latents */
    int blocks;
    double block[TSR_MIX_BLOCKS]; /* with only this block in 8 bits; 0 where it is no resnet */
    double whole;                 /* with all of them */
} tsr_losses;

/* The text of the cache folder, and back: false where it is of another model's shape, or none at all. */
void tsr_losses_print(char *text, size_t size, const tsr_losses *l);
bool tsr_losses_parse(const char *text, const tsr_half *decoder, tsr_losses *out);

/* The cheapest mix that is expected to hold `quality` dB: of the sets of blocks whose losses add up to no more than
 * that allows, the one with the most work in 8 bits. Losses add, for they are independent; where the whole is more than
 * the sum, all count for so much more. TSR_ERR_MEMORY. */
tsr_status tsr_mix_choose(const tsr_losses *l, const tsr_half *decoder, double quality, tsr_mix *out);

#endif
