/* What --psnr reports: a render against the clip it was encoded from, and against the same decode in f32. */
#ifndef TSR_QUALITY_H
#define TSR_QUALITY_H

#include "cli.h"

#include <tessera/compare.h>
#include <tessera/media.h>

typedef struct quality {
    tsr_reader *clip;      /* NULL: not compared with one */
    float *shown, *source; /* [height][width][3], -1..1 */
    int64_t frames;
    double mse, ssim; /* sums over frames */
    tsr_difference worst;
} quality;

/* Makes the clip ready to be compared from frame `first` on, where its frames have the size of the render's; else
 * says why not, and compares nothing. Returns the exit status. */
int quality_open(quality *q, const char *clip, int width, int height, int64_t first);
/* The next frame as it is written, with the clip's next one. */
tsr_status quality_frame(quality *q, const tsr_frame *frame);
void quality_say(const quality *q, const char *clip);
void quality_close(quality *q);

/* Decodes a sample of frames [first, end) by the plan's precision and by f32, and says how far they are apart. */
int quality_precision(const options *o, tsr_engine *e, tsr_model *m, tsr_latent *z, int video,
    const tsr_plan_info *plan, int64_t first, int64_t end);

#endif
