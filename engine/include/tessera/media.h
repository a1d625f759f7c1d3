/*
 * Media: frames to files and back. Independent of the engine: any RGB frames will do.
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
TSR_API const char *tsr_format_name(tsr_format f);

typedef struct tsr_writer_params {
    const char *path; /* "-": standard output; with %05d: numbered pictures; NULL for TSR_FORMAT_NULL */
    tsr_format format;
    int width, height;
    int64_t frames;    /* that will come, 0: not known; npy and safetensors need it, one picture wants 1 */
    int64_t first;     /* index of the first of them; numbered pictures carry the index of their frame */
    double fps;        /* 23.976, 29.97, 59.94 and the like become the exact n*1000/1001 */
    int crf;           /* -1: the codec's default here */
    const char *codec; /* libav encoder name, NULL: the container's default here */
    int depth;         /* bits: 8 or 10 for video, 8 or 16 for PNG */
    bool overwrite;
    const char *audio_from; /* mp4, mkv, webm: a clip whose sound is copied as it is, where it has any; NULL: none */
    double audio_start;     /* seconds of that clip's pictures that the first frame here stands for */
    const char *resume; /* to go on where a writer stopped, killed or failed: says what is written, below. NULL: not */
} tsr_writer_params;
#define TSR_WRITER_PARAMS_DEFAULT                                                                                      \
    { .fps = 24, .crf = -1, .depth = 8 }

/* What a writer takes. Video is BT.709, limited range, tagged so (Y4M has no tag for the matrix); 4:2:0 with
 * chroma sited left, or 4:4:4 where an odd width or height and an encoder that wants even ones ask for it. Opening
 * a video sends libav's log, process-wide, to tsr_log. A write to a closed pipe or beyond a file size limit is an
 * error here only where the program ignores SIGPIPE and SIGXFSZ. */
typedef struct tsr_writer tsr_writer;
/* Checks everything that can be checked before decoding: the folder exists and takes files, the output does
 * not exist (or overwrite), suffix and codec are known, one picture is one frame. Regular files are written as
 * path.part and renamed by tsr_writer_finish; numbered pictures one by one; pipes and devices directly. */
TSR_API tsr_status tsr_writer_open(tsr_writer **out, const tsr_writer_params *params);
/* The first file that tsr_writer_open would refuse to overwrite, malloc'd; NULL: none. For asking first. */
TSR_API char *tsr_writer_existing(const tsr_writer_params *params);
/* With params.resume a writer keeps a journal, path.resume, and what it has written when it does not come to its end;
 * the next one with equal params goes on behind it, at frame first + tsr_writer_done, and the file comes out as if it
 * had been written at once. `resume` is text, lines of "NAME VALUE\n" that are equal where all frames would be; lines
 * "note NAME VALUE\n" are not compared, and come back from tsr_writer_recall. A journal of other params is
 * TSR_ERR_FORMAT, an output that is no file TSR_ERR_ARGUMENT. Every frame is on disk before the next one is asked for:
 * numbered pictures under their names, others in path.part, video as the encoded parts and last frames in path.parts,
 * joined by tsr_writer_finish. Without `resume` a journal that is there is removed: what it speaks of is gone. */
TSR_API int64_t tsr_writer_done(const tsr_writer *w);
/* Adds a note to the journal, where there is one; it counts for frames to come. Neither text has line ends in it, the
 * name no spaces. Not while frames come. */
TSR_API tsr_status tsr_writer_note(tsr_writer *w, const char *name, const char *value);
/* The last note of this name in the journal that was left, malloc'd; NULL: none. */
TSR_API char *tsr_writer_recall(const tsr_writer_params *params, const char *name);
TSR_API tsr_pixels tsr_writer_pixels(const tsr_writer *w); /* the format tsr_writer_frame expects */
/* Frames in order, index first, first + 1, ... After a failure only tsr_writer_close is left to call. */
TSR_API tsr_status tsr_writer_frame(tsr_writer *w, const tsr_frame *frame);
/* Completes the file and gives it its name; fails where fewer frames came than announced. */
TSR_API tsr_status tsr_writer_finish(tsr_writer *w);
/* Without a finish before it, removes the part file. */
TSR_API void tsr_writer_close(tsr_writer **w);

/* 128 bits of what a file holds, in hexadecimal: equal files have equal ones. No proof against forgery. */
TSR_API tsr_status tsr_file_digest(const char *path, char digest[33]);

/* ---------------------------------------------------------------- reading */

typedef struct tsr_media_info {
    const char *path, *kind; /* "png", "numbered pictures", "picture", "video", "npy", "safetensors" */
    int width, height;       /* as shown: a video that asks to be turned is */
    int64_t frames;          /* 0: not known before tsr_reader_count */
    double fps;              /* on average; 0: none */
    bool variable;           /* frames are not evenly spaced in time; known once counted */
    int depth;               /* bits a channel */
    bool audio;
    const char *notes; /* "alpha is dropped; ...", or "" */
} tsr_media_info;

/* Frames of a picture, of numbered pictures (%05d, from the lowest number there is, without gaps), of a video (any
 * that libav decodes; matrix, range, chroma siting and rotation as tagged) or of a tensor file [3, F, H, W]; known by
 * content. No playlists, nothing but the file named. A damaged or truncated file is an error, never fewer frames. */
typedef struct tsr_reader tsr_reader;
TSR_API tsr_status tsr_reader_open(tsr_reader **out, const char *path);
TSR_API const tsr_media_info *tsr_reader_get_info(const tsr_reader *r);
/* Decodes a video once to its end to count its frames, and fills info.frames; finds damage before work is spent. */
TSR_API tsr_status tsr_reader_count(tsr_reader *r, int64_t *frames);
/* The next frame, float [height][width][3], -1..1 (tensor files: as they are); NULL: stepped over. *got is false
 * where there are no more. */
TSR_API tsr_status tsr_reader_frame(tsr_reader *r, float *rgb, bool *got);
TSR_API void tsr_reader_close(tsr_reader **r);

#ifdef __cplusplus
}
#endif
#endif
