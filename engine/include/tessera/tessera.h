/*
 * Tessera: decodes (and encodes) the latents of the SeedVR2 video VAE under a memory budget.
 *
 * The whole public interface is in this folder; this header is the core of it.
 *
 *     model, latent  ->  plan  ->  decode  ->  frames through a callback, in order
 *
 * Every function that can fail returns a tsr_status; the message of the calling thread's last failure
 * is in tsr_last_error(). Objects are created by *_open/_create and destroyed by *_close/_destroy, which
 * take a pointer to the handle, accept NULL handles and set them to NULL. Nothing here calls exit(), reads
 * the command line or touches the network. Handles may be used by one thread at a time unless a function
 * says otherwise.
 */
#ifndef TESSERA_H
#define TESSERA_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TSR_API __attribute__((visibility("default")))

/* ---------------------------------------------------------------- status, log */

typedef enum tsr_status {
    TSR_OK = 0,
    TSR_ERR_ARGUMENT,    /* a parameter makes no sense: the command line's or the caller's fault */
    TSR_ERR_FORMAT,      /* a file is not what it should be */
    TSR_ERR_IO,          /* reading or writing failed */
    TSR_ERR_MEMORY,      /* an allocation failed, on the host or the device */
    TSR_ERR_BUDGET,      /* not even the smallest plan fits the budget */
    TSR_ERR_DEVICE,      /* CUDA or Vulkan failed or is missing */
    TSR_ERR_UNSUPPORTED, /* understood, but not possible here */
    TSR_ERR_CANCELLED,   /* tsr_cancel() or a callback asked to stop */
    TSR_ERR_NOT_FINITE,  /* numbers left the range of the precision, and nothing here could help it */
} tsr_status;

/* One line: what, where, what to do. Valid until the calling thread's next failing call. Never NULL. */
TSR_API const char *tsr_last_error(void);
TSR_API const char *tsr_version(void);

typedef enum tsr_log_level { TSR_LOG_ERROR, TSR_LOG_WARN, TSR_LOG_INFO, TSR_LOG_DEBUG } tsr_log_level;
typedef void (*tsr_log_fn)(void *user, tsr_log_level level, const char *line);
/* Process-wide; fn may be called from any thread, one call at a time. NULL silences. Default: silent. */
TSR_API void tsr_log_set(tsr_log_level most, tsr_log_fn fn, void *user);

/* ---------------------------------------------------------------- model */

typedef enum tsr_precision {
    TSR_PRECISION_AUTO,
    TSR_PRECISION_F32,
    TSR_PRECISION_FP16,
    TSR_PRECISION_BF16,
    TSR_PRECISION_FP8,
    TSR_PRECISION_INT8,
} tsr_precision;
TSR_API const char *tsr_precision_name(tsr_precision p); /* "auto", "f32", "fp16", ... */

#define TSR_MAX_LEVELS 8

typedef struct tsr_model_info {
    const char *path, *container; /* "safetensors", "gguf" */
    int tensors;
    int64_t parameters, file_bytes;
    bool has_decoder, has_encoder;
    int latent_channels;           /* Z, 16 */
    int space_factor, time_factor; /* 8, 4 */
    int levels;
    int width[TSR_MAX_LEVELS];            /* channels per level, widest picture first: 128, 256, 512, 512 */
    int decoder_resnets, encoder_resnets; /* a level */
    double latent_scale;                  /* 0.9152: latents outside the VAE are multiplied by this */
} tsr_model_info;

typedef struct tsr_model tsr_model;
/* Maps a VAE (safetensors or GGUF, known by content) and checks every tensor against the architecture read
 * from names and shapes. Weights are not converted until a plan needs them. */
TSR_API tsr_status tsr_model_open(tsr_model **out, const char *path);
TSR_API void tsr_model_close(tsr_model **m);
TSR_API const tsr_model_info *tsr_model_get_info(const tsr_model *m);

/* ---------------------------------------------------------------- latents */

typedef enum tsr_layout { TSR_LAYOUT_AUTO, TSR_LAYOUT_BCFHW, TSR_LAYOUT_BFHWC } tsr_layout;

typedef struct tsr_latent_params {
    tsr_layout layout;
    int channels; /* Z of the model that will decode it */
    double scale; /* what the file's values were multiplied by; 1 for none; 0: model_scale, or what the file says */
    double model_scale; /* tsr_model_info.latent_scale */
} tsr_latent_params;
#define TSR_LATENT_PARAMS_DEFAULT                                                                                      \
    { .channels = 16, .model_scale = 0.9152 }

typedef struct tsr_latent_info {
    const char *path, *container; /* "safetensors", "npy" */
    int videos;                   /* batch: decoded one after the other */
    int frames, height, width;    /* of one video, in latents */
    tsr_layout layout;
    double scale;                             /* what values are divided by on reading */
    int crop_width, crop_height, crop_frames; /* picture size recorded by encode, 0 where not */
} tsr_latent_info;

typedef struct tsr_latent tsr_latent;
TSR_API tsr_status tsr_latent_open(tsr_latent **out, const char *path, const tsr_latent_params *params);
/* Copies z, float32 [frames][height][width][channels], already unscaled. */
TSR_API tsr_status tsr_latent_from_memory(
    tsr_latent **out, const float *z, int frames, int height, int width, int channels);
TSR_API void tsr_latent_close(tsr_latent **z);
TSR_API const tsr_latent_info *tsr_latent_get_info(const tsr_latent *z);

/* ---------------------------------------------------------------- engine: the devices */

typedef enum tsr_device_kind { TSR_DEVICE_AUTO, TSR_DEVICE_CPU, TSR_DEVICE_CUDA } tsr_device_kind;

typedef struct tsr_engine_params {
    tsr_device_kind device;
    int device_index;    /* cuda:N; -1 any */
    int vulkan_index;    /* -1 auto: the CUDA device's, else a GPU (discrete, integrated, virtual), else software */
    int threads;         /* CPU threads that decode; 0: all */
    bool reference;      /* CPU: plain C tier only */
    bool validation;     /* Vulkan validation layers; messages are errors in the log */
    bool no_host_import; /* do not import host pages into Vulkan, copy (tests) */
} tsr_engine_params;
#define TSR_ENGINE_PARAMS_DEFAULT                                                                                      \
    { .device_index = -1, .vulkan_index = -1 }

typedef struct tsr_engine tsr_engine;
/* Opens the device that decodes; Vulkan's is opened by the first decode or report. TSR_DEVICE_AUTO is CUDA where it is
 * to be had, else the CPU. TSR_ERR_UNSUPPORTED or TSR_ERR_DEVICE where the one asked for is not. */
TSR_API tsr_status tsr_engine_create(tsr_engine **out, const tsr_engine_params *params);
/* Plans keep what they need of the engine; it is gone with the last of them. */
TSR_API void tsr_engine_destroy(tsr_engine **e);
/* Lines of text about devices, Vulkan, precisions, and how slots reach Vulkan here and why. Parts that are missing
 * are reported, too. The strings are valid during the call. */
typedef void (*tsr_line_fn)(void *user, const char *key, const char *value);
TSR_API tsr_status tsr_engine_report(tsr_engine *e, tsr_line_fn line, void *user);

/* ---------------------------------------------------------------- plan */

typedef enum tsr_mode { TSR_MODE_AUTO, TSR_MODE_UNTILED, TSR_MODE_OFFLOADED, TSR_MODE_TILED, TSR_MODE_EXACT } tsr_mode;
typedef enum tsr_cache_home { TSR_CACHES_AUTO, TSR_CACHES_DEVICE, TSR_CACHES_HOST } tsr_cache_home;

typedef struct tsr_extent {
    int frames, height, width; /* latents */
} tsr_extent;

typedef struct tsr_plan_params {
    tsr_precision precision;
    int64_t budget;                    /* bytes of device memory for everything; 0: free memory less 10% */
    double budget_share;               /* of all device memory, 0..1; used where budget is 0 and this is not */
    bool untiled;                      /* forbid tiles */
    int tile_width, tile_height;       /* output pixels, 0: auto */
    int overlap_width, overlap_height; /* output pixels, -1: auto */
    tsr_cache_home caches;
    int first_frame,
        end_frame;  /* output frames [first, end); end 0: all. Earlier ones are computed where causality needs them */
    double quality; /* PSNR against f32 to hold, dB over a range of 2; 0: none asked. Of the blocks whose convs
                       `precision` would run in 8 bits (auto: the device's own) the plan keeps those wide that
                       lose most for their work, by what tsr_quality_measure() found. Decoders only; 16-bit
                       precisions and f32 are taken as they are */
    bool exact;     /* tiles equal to untiled: no others. On a CPU these come first where neither tiles,
                       overlaps nor the home of caches are given */
    bool live;      /* for watching: whole frames early, where the memory for that is there */
    const char *recipe; /* of tsr_plan_info: that plan again, on the same device by the same version, whatever
                           rates, free memory and tuned tiles are by now. Of what is above only the budget
                           counts, 0 being the recipe's. TSR_ERR_FORMAT where it is another video's or device's.
                           NULL: none */
} tsr_plan_params;
#define TSR_PLAN_PARAMS_DEFAULT                                                                                        \
    { .overlap_width = -1, .overlap_height = -1 }

/* Bytes by part. total is what the device holds at the worst moment; host is beside it: caches that do not live on the
 * device, and what is read. */
typedef struct tsr_plan_bytes {
    int64_t weights, arena, caches, slots, frames, total, host;
} tsr_plan_bytes;

typedef struct tsr_plan_info {
    tsr_mode mode;
    tsr_precision precision;
    tsr_extent extent;
    int frames, width, height;                                  /* of the output */
    int tile_width, tile_height, overlap_width, overlap_height; /* output pixels; the frame itself where untiled */
    int columns, rows;                                          /* tiles */
    int bands, band_height; /* exact tiles: of the frame's width, and so many rows of the output; else 0 */
    int segment;            /* latent frames decoded for one tile before the next tile's turn */
    tsr_plan_bytes bytes;
    int64_t budget;
    double flops;        /* of the whole decode */
    double seconds;      /* it is predicted to take; 0: unknown, the device's rates are not */
    int64_t arena_bound; /* no arena could be smaller: the largest set of buffers that live together */
    const char *device, *why, *runner_up;
    const char *numbers; /* which layers are computed in which precision, and why, in words */
    double quality;      /* PSNR that these were chosen to hold, dB; 0: none */
    bool unmeasured; /* tsr_quality_measure() would let TSR_PRECISION_AUTO choose a faster precision: numbers says so */
    const char *recipe; /* one line for tsr_plan_params.recipe */
} tsr_plan_info;

typedef struct tsr_plan tsr_plan;
/* Pure arithmetic, quick enough for a slider, and allowed on any thread while the engine decodes. TSR_ERR_BUDGET where
 * nothing fits; the message names the bytes that would be needed. The model must outlive the plan. */
TSR_API tsr_status tsr_plan_create(
    tsr_plan **out, tsr_engine *e, const tsr_model *m, const tsr_extent *extent, const tsr_plan_params *params);
/* Frees what the engine holds ready for it, too. Not while it is decoded. */
TSR_API void tsr_plan_destroy(tsr_plan **p);
TSR_API const tsr_plan_info *tsr_plan_get_info(const tsr_plan *p);
/* Finds out how much every resnet of the decoder loses in the 8 bits of `precision` (auto: the device's own), on a
 * piece of z, or of noise where z is NULL (which does only as long as there is nothing better): once for a model file,
 * tens of seconds, on the CPU, said in the log. What was found is kept in the cache folder and by the engine; where it
 * is known already, or the precision has no 8 bits, this returns at once. Plans with a quality need it; those of
 * TSR_PRECISION_AUTO use it where it is there. tsr_cancel(e) stops it: TSR_ERR_CANCELLED. */
TSR_API tsr_status tsr_quality_measure(tsr_engine *e, tsr_model *m, const tsr_latent *z, tsr_precision precision);
/* The table that `tessera plan` prints. Free with free(). */
TSR_API char *tsr_plan_text(const tsr_plan *p);

/* ---------------------------------------------------------------- decode */

typedef enum tsr_pixels {
    TSR_PIXELS_RGB8,    /* uint8 [height][width][3], clamped, rounded or dithered */
    TSR_PIXELS_RGB16,   /* uint16 [height][width][3], full range */
    TSR_PIXELS_RGB_F32, /* float [3][height][width], the decoder's numbers, nominally -1..1, not clamped */
} tsr_pixels;

typedef struct tsr_frame {
    int64_t index; /* output frame, from 0, of the video in hand */
    int width, height;
    tsr_pixels pixels;
    const void *data; /* tightly packed; valid during the callback */
    size_t bytes;
} tsr_frame;

/* A frame of TSR_PIXELS_RGB_F32 as other pixels, [height][width][3], equal to the bit to what a decode of these pixels
 * gives: for programs that change frames before they write them. */
TSR_API void tsr_frame_pixels(const tsr_frame *frame, tsr_pixels pixels, bool dither, void *out);

typedef struct tsr_progress {
    int64_t frames, of;  /* given out, in all */
    double seconds, eta; /* since the call began; eta < 0: not known yet */
    double share;        /* of the work, 0..1, by arithmetic done: it moves within a step, too */
} tsr_progress;

typedef struct tsr_decode_params {
    tsr_pixels pixels;
    bool dither;       /* RGB8 only */
    int video;         /* of the latent's batch */
    int first_frame;   /* of the output; frames before it are not given out. Goes on where a decode by
                          the same plan ended: those from here on are the same to the bit. What comes
                          before is computed again as far as causality sees (37 latents with the
                          published model, and up to the begin of their segment); all of it in int8,
                          whose scales remember everything */
    const char *trace; /* Chrome trace file, or NULL; written whole, of a failed decode too */
    /* Frames in order, from one thread that is not the caller's. A status other than TSR_OK stops the decode
     * and is returned by it, with the message that the callback left in its thread's tsr_last_error(). NULL: the
     * frames go nowhere. */
    tsr_status (*on_frame)(void *user, const tsr_frame *frame);
    /* On the caller's thread: before the work begins, at most ten times a second, and when all is done. May call
     * tsr_cancel(). May be NULL. */
    void (*on_progress)(void *user, const tsr_progress *progress);
    /* On the caller's thread: memory ran short, although the plan said it would do, and a smaller plan goes on from
     * output frame `first`. Frames given out stay as they are, none comes twice. `why` is one line; it is logged, too.
     * May be NULL. */
    void (*on_plan)(void *user, const tsr_plan_info *plan, int64_t first, const char *why);
    void *user;
} tsr_decode_params;
#define TSR_DECODE_PARAMS_DEFAULT                                                                                      \
    { .dither = true }

typedef struct tsr_result {
    int64_t frames;
    double seconds;
    double load, prepare, decode, blend, write; /* seconds each stage was busy; they overlap */
    int64_t peak_bytes, planned_bytes; /* device memory: really allocated at the worst moment, and as planned */
    int64_t host_peak_bytes, host_planned_bytes; /* host memory beside the device's, likewise; on a CPU, too */
    int64_t vulkan_bytes; /* beside these: pictures read back, tables, copies of slots that cannot be
                             imported */
} tsr_result;

/* Decodes by the plan. Where its memory is not to be had, it goes on by smaller ones, down to the smallest that the
 * plan's params allow; TSR_ERR_MEMORY then names what would be needed. result may be NULL; it is filled on success.
 * What was made ready for the plan stays so, until the plan or the engine is destroyed or another plan is decoded: the
 * next video by the same plan starts at once. */
TSR_API tsr_status tsr_decode(
    tsr_engine *e, tsr_model *m, tsr_latent *z, const tsr_plan *p, const tsr_decode_params *params, tsr_result *result);
/* From any thread or a signal handler: the running decode stops after the op in hand, lets the frame being written
 * finish, and returns TSR_ERR_CANCELLED. Without a decode running it does nothing: who must not lose a wish to stop
 * keeps it in a flag of his own and calls this from on_progress, whose first call comes before any work. */
TSR_API void tsr_cancel(tsr_engine *e);

#ifdef __cplusplus
}
#endif
#endif
