/*
 * Media: frames to files. Independent of the engine: any RGB frames will do.
 */
#ifndef TESSERA_MEDIA_H
#define TESSERA_MEDIA_H

#include <tessera/tessera.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tsr_format {
    TSR_FORMAT_AUTO, /* by the suffix of the path */
    TSR_FORMAT_PNG,
    TSR_FORMAT_MP4,
    TSR_FORMAT_MKV,
    TSR_FORMAT_WEBM,
    TSR_FORMAT_Y4M,
    TSR_FORMAT_RGB24,
    TSR_FORMAT_RGB48,
    TSR_FORMAT_NPY,
    TSR_FORMAT_SAFETENSORS,
    TSR_FORMAT_NULL,
} tsr_format;
/* "png", "mp4", ...; false where there is none of that name. */
TSR_API bool tsr_format_from_name(const char *name, tsr_format *out);

typedef struct tsr_writer_params {
    const char *path;    /* "-": standard output; with %05d: numbered pictures; NULL for TSR_FORMAT_NULL */
    tsr_format format;
    int width, height;
    int64_t frames;      /* that will come: npy and safetensors need it, one picture wants 1 */
    double fps;
    int crf;             /* -1: the codec's default here */
    const char *codec;   /* libav encoder name, NULL: the container's default here */
    int depth;           /* 8 or 10, video */
    bool overwrite;
} tsr_writer_params;
#define TSR_WRITER_PARAMS_DEFAULT {.fps = 24, .crf = -1, .depth = 8}

/* What a writer takes. */
typedef struct tsr_writer tsr_writer;
/* Checks everything that can be checked before decoding: the folder exists and takes files, the output does
 * not exist (or overwrite), suffix and codec are known, one picture is one frame. Regular files are written as
 * path.part and renamed by tsr_writer_finish; numbered pictures one by one; pipes and devices directly. */
TSR_API tsr_status tsr_writer_open(tsr_writer **out, const tsr_writer_params *params);
TSR_API tsr_pixels tsr_writer_pixels(const tsr_writer *w); /* the format tsr_writer_frame expects */
TSR_API tsr_status tsr_writer_frame(tsr_writer *w, const tsr_frame *frame);
/* Completes the file and gives it its name. */
TSR_API tsr_status tsr_writer_finish(tsr_writer *w);
/* Without a finish before it, removes the part file. */
TSR_API void tsr_writer_close(tsr_writer **w);

#ifdef __cplusplus
}
#endif
#endif
