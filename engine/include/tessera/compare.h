/*
 * Compare: how far apart two results are. Any two files of frames that tsr_reader_open takes.
 *
 * Frames are compared as RGB in -1..1, all three channels alike. PSNR is 10 log10(4 / MSE), its range the 2 between
 * black and white: the same number that 255 gives for 8-bit codes. SSIM is the mean over channels and pixels of the
 * usual one (Gaussian window of 11x11, sigma 1.5, K1 0.01, K2 0.03), where the window lies inside the frame. Tensor
 * files are compared as they are; where one side is a picture or a video, both are clamped to what can be shown.
 */
#ifndef TESSERA_COMPARE_H
#define TESSERA_COMPARE_H

#include <tessera/tessera.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_difference {
    int64_t frame;
    double mse;           /* of values in -1..1 */
    double psnr, ssim;    /* dB, infinite where equal; -1..1 */
    double largest;       /* difference of two values */
    int block_x, block_y; /* pixels: upper left of the block that is furthest off */
    double block_mse, block_psnr;
} tsr_difference;

/* Two frames, float [height][width][3] each. Blocks are block x block pixels, those at the right and below cut. */
TSR_API tsr_status tsr_compare_frames(
    const float *a, const float *b, int width, int height, int block, tsr_difference *out);

typedef struct tsr_compare_params {
    int block;              /* side of a block, pixels */
    int64_t first, end;     /* frames [first, end) of both; end 0: to the last */
    const char *difference; /* a PNG for |a - b| of the worst frame, the worst block framed; NULL: none */
    bool overwrite;
    /* Each frame as it is done; anything but TSR_OK stops. May be NULL. */
    tsr_status (*on_frame)(void *user, const tsr_difference *d);
    void *user;
} tsr_compare_params;
#define TSR_COMPARE_PARAMS_DEFAULT                                                                                     \
    { .block = 16 }

typedef struct tsr_comparison {
    int width, height;
    int64_t frames;
    double psnr, ssim; /* of all frames: PSNR of the mean of their squared errors, mean SSIM */
    double largest;
    tsr_difference worst; /* the frame of the lowest PSNR */
    tsr_difference block; /* the frame that holds the worst block of all */
    double gain;          /* what the difference picture is multiplied by */
} tsr_comparison;

/* TSR_ERR_ARGUMENT where sizes or numbers of frames differ. */
TSR_API tsr_status tsr_compare(const char *a, const char *b, const tsr_compare_params *params, tsr_comparison *out);

/* 10 log10(4 / mse). */
TSR_API double tsr_psnr(double mse);

#ifdef __cplusplus
}
#endif
#endif
