/*
 * Step programs: the network unrolled to a flat list of ops over numbered buffers, for one tile shape and one kind
 * of step. The same list drives every backend and the planner's arithmetic.
 *
 * Decoder steps take one latent frame. FIRST: the clip's first latent, 1 output frame, all kernels without time
 * taps. SECOND: 4 frames, its temporal upsamplers still see the clip's first frame (spec 9.3). LATER: 4 frames each.
 * Encoder steps: FIRST takes 1 picture, LATER takes 4 and gives one latent; there is no SECOND.
 *
 * Buffers are [head + frames][h][w][c], c fastest (NDHWC). The head holds the frames that a causal conv remembers
 * from before (kt - st of them), at negative frame numbers; CACHE_LOAD fills it and CACHE_SAVE keeps the last ones.
 *
 * Bands: from params.page_level up, the frames that outlive a section lie whole in host memory, "paged". A section is a
 * run of ops that is repeated for every band of rows: copy rows in, with one more above and below where a conv reads
 * across; norm, conv, statistics; copy rows out. It ends where the next op wants what only all bands together give: the
 * statistics of a whole frame, or the neighbours of rows just written. So the result is that of whole frames.
 */
#ifndef TSR_PROGRAM_H
#define TSR_PROGRAM_H

#include "model/kernels.h"

typedef enum tsr_step { TSR_STEP_FIRST, TSR_STEP_SECOND, TSR_STEP_LATER, TSR_STEP_COUNT } tsr_step;
const char *tsr_step_name(tsr_step s);

typedef enum tsr_op_kind {
    TSR_OP_INPUT,      /* out = the step's input frames in.t0.. (latent or pictures), converted */
    TSR_OP_CONV,       /* out (+)= conv(in) * kernel + bias */
    TSR_OP_STATS,      /* out = per frame and group: sum, sum of squares of in (f64 [frames][1][groups][2]); where the
                          norm gives u8 codes, [groups + c][2]: then per channel the smallest and the largest */
    TSR_OP_NORM,       /* out = quantise(silu?(groupnorm(in; statistics))) */
    TSR_OP_ATTENTION,  /* out = softmax(q k^T / sqrt(c)) v, per frame; in: [q | k | v], 3c channels */
    TSR_OP_QUANTISE,   /* out = quantise(in): a raw stream that a conv reads in fewer bits */
    TSR_OP_CACHE_LOAD, /* head of out = cache */
    TSR_OP_CACHE_SAVE, /* cache = frames in.t0 .. in.t0 + in.nt of in (as many as the cache has; negative ones lie in
                          its head, or, where heads are not joined, are the cache's own last), or frame in.t0 repeated
                        */
    TSR_OP_STORE,      /* the slot's frames out.t0.. = in, planar [frame][channel][row][column], in the slot's dtype */
    TSR_OP_PAGE_IN,    /* out, a band = its rows of in, whole frames; rows outside of the picture are zero */
    TSR_OP_PAGE_OUT,   /* out, whole frames: its rows = in, a band without its halo */
    TSR_OP_KINDS,
} tsr_op_kind;
const char *tsr_op_kind_name(tsr_op_kind k);

typedef struct tsr_view { /* frames [t0, t0+nt), rows [y0, y0+ny) of a buffer; of whole frames that PAGE_IN and
                             PAGE_OUT move, rows count from the band's first */
    int buf;              /* -1: none (INPUT's in, STORE's out) */
    int t0, nt;
    int y0, ny;
} tsr_view;

/* How a tensor of 8 bits stands for real numbers; shared by all backends, defined in docs/precision.md.
 * real = (code - zero) * scale (u8), code * scale (e4m3). gain: per-channel factors the quantiser multiplies by
 * before rounding and the weights absorb (smoothing), or NULL. */
typedef struct tsr_quant {
    float scale; /* 0: chosen while decoding, with zero and gain: a tsr_code_range */
    int zero;
    const float *gain; /* [c], owned by the program */
} tsr_quant;

/* What u8 codes stand for, as a norm chose it for the frames at hand. Lies beside the codes in caches, too. */
typedef struct tsr_code_range {
    float scale; /* not finite where the frames are not */
    int32_t zero;
} tsr_code_range;
enum { TSR_CACHE_RANGE = 64 }; /* bytes at the end of a cache of u8 codes that hold its tsr_code_range */

typedef struct tsr_op {
    tsr_op_kind kind;
    int layer;  /* for names, norm weights; -1 */
    int kernel; /* CONV: index into kernels; else -1 */
    int cache;  /* CACHE_*: index into caches. CONV: whose frames precede `in` where heads are not joined. NORM to
                   u8: whose range must not shrink. Else -1 */
    tsr_view in, out;
    int stats; /* NORM: the statistics' buffer. CONV: statistics the epilogue may produce on the way, -1: none */
    /* CONV: output frame i reads input frames in.t0 + i*st - (kt-1) .. in.t0 + i*st (in.t0 is the last tap of the
     * first output) and lands at out.t0 + i*out_dt. in.nt is the number of outputs. Rows likewise: output rows
     * out.y0.. read rows from in.y0 + sy*y - pad_top; rows outside the buffer are zero. */
    int out_dt;
    bool accumulate; /* CONV: add to out (the residual stream is updated in place) */
    bool silu;       /* NORM */
    bool replicate;  /* CACHE_SAVE: frame 0 fills the whole cache (first step) */
    int section;     /* -1: runs once */
} tsr_op;

typedef struct tsr_buffer {
    const char *name;
    tsr_dtype dtype;
    int head, frames;
    int h, w, c;
    int quant;             /* index into quants; -1: plain numbers */
    int first_op, last_op; /* lifetime, both included */
    size_t bytes;          /* (head + frames) * h * w * c * size */
    tsr_dtype rounded;     /* F16, BF16, E4M3 (times 1/8): an f32 buffer whose numbers are rounded to those of this
                              type; F32: not */
    int shift;             /* holds numbers times 2^-shift */
    bool paged;            /* whole frames in host memory, not in the arena */
    int halo;              /* of a band: rows above, and as many below, that belong to its neighbours */
    int whole;             /* of a band: rows of the whole picture; 0: no band */
} tsr_buffer;

/* Rows of the picture that the buffer shows, or shows a part of. */
static inline int tsr_picture_rows(const tsr_buffer *b) {
    return b->whole ? b->whole : b->h;
}
/* Row of the buffer where band number `band` of the picture has the picture's row 0: 0 or less, but for a halo. */
static inline int tsr_picture_begin(const tsr_buffer *b, int band) {
    return b->halo - band * (b->h - 2 * b->halo);
}

typedef struct tsr_cache {
    int layer; /* the conv that remembers */
    tsr_dtype dtype;
    int frames, h, w, c;
    size_t bytes; /* frames * h * w * c * size, and TSR_CACHE_RANGE for u8 codes */
    bool paged;   /* loaded and saved in bands: lies on the host */
} tsr_cache;

typedef struct tsr_section {
    int first, end; /* ops [first, end), all of them once for every band */
} tsr_section;

/* bf16's stream is of fp16, which has three more bits, and holds x/64 for the range: 4.2 million. */
enum { TSR_BF16_SHIFT = 6 };

/* Number types of the parts of a program. */
typedef struct tsr_numerics {
    tsr_precision precision; /* what the user asked for: one of the concrete ones */
    tsr_dtype stream;        /* residual stream: F32, F16, BF16 */
    tsr_dtype act;           /* inputs of convs not in `eight` */
    tsr_dtype slot;          /* F16 or F32 */
    tsr_dtype eight_type;    /* U8 or E4M3; F32: numbers of e4m3, kept in f32 */
    const uint8_t *eight;   /* [layers]: where the conv layer reads 8-bit input 1, or 2: u8 codes have two planes. NULL:
                               none does. Not kept by programs and plans */
    tsr_dtype round;        /* F16, BF16: act is f32, rounded to numbers of this type; else F32 */
    tsr_dtype round_stream; /* the same of the stream */
    int shift;              /* the stream holds x times 2^-shift; then convs read it as it is, not as act */
} tsr_numerics;

typedef struct tsr_program_params {
    bool encode;
    tsr_step step;
    int h, w; /* of the input: latents (decoder) or pixels (encoder) */
    tsr_numerics numerics;
    bool keep;       /* a later step will follow: leave caches for it. A first step that keeps nothing has none */
    bool join_heads; /* conv inputs hold their head frames in one piece; false: read from the cache by the backend */
    int slice_level; /* levels >= this run one frame at a time within the step; 0..levels-1; >= levels: never */
    int band;        /* latent rows of a band; 0: no bands. A decoder without slices, with joined heads */
    int page_level;  /* with bands: levels >= this run in bands; 1..levels-1 */
} tsr_program_params;

typedef struct tsr_program {
    tsr_program_params params;
    const tsr_half *half;
    int ops, buffers, kernels, caches, quants, sections;
    int bands; /* of a picture: the last may reach beyond its end */
    tsr_op *op;
    tsr_buffer *buffer;
    tsr_kernel *kernel;
    tsr_cache *cache; /* the same numbering and sizes in all steps of a (shape, numerics) that have any */
    tsr_quant *quant;
    tsr_section *section;
    int in_frames, in_h, in_w, in_c;     /* of the step's input */
    int out_frames, out_h, out_w, out_c; /* of what STORE leaves in the slot */
} tsr_program;

tsr_status tsr_program_create(tsr_program **out, const tsr_half *half, const tsr_program_params *params);
void tsr_program_destroy(tsr_program **p);

/* What GroupNorm of a buffer adds to its variance. */
static inline double tsr_norm_eps(const tsr_buffer *in) {
    return TSR_NORM_EPS / (double)(1ull << 2 * in->shift);
}

/* Of a NORM to u8 codes: how many planes of 8 bits hold a code, which is their sum; 1 or 2. They lie side by side in
 * the channels of a pixel, and the conv that reads them has its weights once for each. */
static inline int tsr_planes(const tsr_program *p, const tsr_op *norm) {
    return p->buffer[norm->out.buf].c / p->buffer[norm->in.buf].c;
}

/* How often an op is run in a step: once, or once a band. What an op costs below is that of one run. */
static inline int tsr_op_runs(const tsr_program *p, const tsr_op *op) {
    return op->section < 0 ? 1 : p->bands;
}
/* Multiply-adds counted as 2; norms and activations neglected. */
double tsr_op_flops(const tsr_program *p, const tsr_op *op);
double tsr_program_flops(const tsr_program *p);
/* Bytes an op reads and writes, weights included: for rooflines. */
double tsr_op_bytes(const tsr_program *p, const tsr_op *op);
/* "up_blocks.2.resnets.0.conv1 conv 3x3x3 256->256 @ 4x64x64", for traces and benchmarks. */
const char *tsr_op_text(char buf[160], const tsr_program *p, const tsr_op *op);

#endif
