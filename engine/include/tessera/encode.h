/*
 * Encode: frames to latents.
 *
 *     frames, in order  ->  plan  ->  encode  ->  mean and log-variance of each latent frame, in order
 *
 * A latent frame stands for 8x8 pixels, and for one frame (the first) or four (each later one). Widths and heights
 * that 8 does not divide are filled up with copies of the last column and row, frames other than 4k + 1 with copies
 * of the last; whoever writes the latent records the true size.
 */
#ifndef TESSERA_ENCODE_H
#define TESSERA_ENCODE_H

#include <tessera/tessera.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The latents of a clip, rounded up. TSR_ERR_ARGUMENT where the sizes make no sense. */
TSR_API tsr_status tsr_encode_extent(const tsr_model *m, int width, int height, int64_t frames, tsr_extent *out);

/* As tsr_plan_create, for the encoder: tile sizes and overlaps are pixels of the clip, tiles fade into each other in
 * latents. first_frame and end_frame are not looked at. Destroy with tsr_plan_destroy. */
TSR_API tsr_status tsr_encode_plan(
    tsr_plan **out, tsr_engine *e, const tsr_model *m, const tsr_extent *extent, const tsr_plan_params *params);

typedef struct tsr_encode_params {
    int width, height; /* of the clip; the plan's extent is that of tsr_encode_extent */
    int64_t frames;
    /* The next frame, from 0 on: float [height][width][3], -1..1. Called from the caller's thread, as all of these. */
    tsr_status (*read_frame)(void *user, int64_t index, float *rgb);
    /* The next latent frame: float [channels][rows][columns] each, unscaled; logvar clamped to -30..20. Valid during
     * the call; the latent may be changed in place (tsr_encode_sample). */
    tsr_status (*on_latent)(void *user, int t, float *mean, const float *logvar);
    void (*on_progress)(void *user, const tsr_progress *progress); /* frames are frames of the clip; may be NULL */
    /* Memory ran short although the plan said it would do, and a smaller plan begins, before any frame was read. `why`
     * is one line; it is logged, too. May be NULL. */
    void (*on_plan)(void *user, const tsr_plan_info *plan, const char *why);
    void *user;
} tsr_encode_params;

/* A status other than TSR_OK from a callback stops the run and is returned. tsr_cancel() works as for decodes. A latent
 * that is not finite is not handed out: TSR_ERR_NOT_FINITE, and a run in a wider precision begins at frame 0. In the
 * result `load` is the time spent in read_frame, `write` in on_latent; may be NULL. */
TSR_API tsr_status tsr_encode(
    tsr_engine *e, tsr_model *m, const tsr_plan *plan, const tsr_encode_params *params, tsr_result *result);

/* latent = mean + exp(logvar / 2) * n for count values of latent frame t, n from a normal distribution: the same draw
 * for the same seed, frame and size, anywhere. latent may be mean. */
TSR_API void tsr_encode_sample(
    uint64_t seed, int t, size_t count, const float *mean, const float *logvar, float *latent);

/* ---------------------------------------------------------------- files */

typedef struct tsr_latent_writer_params {
    const char *path;  /* .latent or .safetensors: latent_tensor [1, C, T, h, w]; .npy: [C, T, h, w] */
    tsr_extent extent; /* latents */
    int channels;
    double scale;      /* what latents are multiplied by; recorded in the metadata */
    int width, height; /* of the clip, recorded where they are not those of the latents, for render to undo; npy has */
    int64_t frames;    /* no place for it */
    bool stats;        /* also `mean` and `logvar` [1, C, T, h, w], unscaled; not in npy */
    bool overwrite;
} tsr_latent_writer_params;

typedef struct tsr_latent_writer tsr_latent_writer;
/* Written as path.part and renamed by finish. */
TSR_API tsr_status tsr_latent_writer_open(tsr_latent_writer **out, const tsr_latent_writer_params *params);
/* Latent frames in order: float [C][h][w] each, unscaled; mean and logvar are looked at where stats are wanted. */
TSR_API tsr_status tsr_latent_writer_frame(
    tsr_latent_writer *w, const float *latent, const float *mean, const float *logvar);
TSR_API tsr_status tsr_latent_writer_finish(tsr_latent_writer *w);
/* Without a finish before it, removes the part file. */
TSR_API void tsr_latent_writer_close(tsr_latent_writer **w);

#ifdef __cplusplus
}
#endif
#endif
