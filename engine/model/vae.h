/* A VAE read from a tensor file: its architecture, inferred from names and shapes, and its layers. */
#ifndef TSR_VAE_H
#define TSR_VAE_H

#include "formats/tensor_file.h"

#define TSR_GROUPS 32 /* of every GroupNorm; not in the file */
#define TSR_NORM_EPS 1e-6
#define TSR_LATENT_SCALE 0.9152

typedef enum tsr_layer_kind {
    TSR_LAYER_CONV,     /* weight [co][ci][kt][kh][kw] */
    TSR_LAYER_NORM,     /* weight [c], bias [c] */
    TSR_LAYER_LINEAR,   /* weight [co][ci] (or [co][ci][1][1]): to_out of the attention */
    TSR_LAYER_QKV,      /* to_q, to_k, to_v as one linear layer with 3c outputs */
    TSR_LAYER_UPSAMPLE, /* upscale_conv [4 zt c][c][1][1][1] and conv [c][c][3][3][3], merged (spec section 9) */
} tsr_layer_kind;

/* One node of the network that owns weights. The order of layers is the order of computation. */
typedef struct tsr_layer {
    tsr_layer_kind kind;
    char name[96];  /* without prefix: "decoder.up_blocks.2.resnets.0.conv1" */
    int cin, cout;  /* NORM: both are c */
    int kt, kh, kw; /* as stored; 1 for NORM and linear layers */
    int st, sy, sx; /* strides */
    int zt;         /* UPSAMPLE: 2 where it doubles time, else 1 */
    int level;      /* of the picture it reads. 0: the latent's own resolution; each upsampler adds one
                       (decoder), or each downsampler takes one away from the highest (encoder) */
    const tsr_tensor *weight[3], *bias[3]; /* [0]; QKV: q, k, v; UPSAMPLE: [0] conv, [1] upscale_conv */
} tsr_layer;

/* Half of a VAE as a list of blocks over its layers: what the step program is unrolled from. */
typedef enum tsr_block_kind {
    TSR_BLOCK_CONV_IN,    /* layers: conv */
    TSR_BLOCK_RESNET,     /* layers: norm1, conv1, norm2, conv2, shortcut or -1 */
    TSR_BLOCK_ATTENTION,  /* layers: group_norm, qkv, to_out */
    TSR_BLOCK_UPSAMPLE,   /* layers: upsample */
    TSR_BLOCK_DOWNSAMPLE, /* layers: conv, stride 2, pads below and right */
    TSR_BLOCK_OUT,        /* layers: conv_norm_out, conv_out */
} tsr_block_kind;

typedef struct tsr_block {
    tsr_block_kind kind;
    int layer[5]; /* index into tsr_half.layer, -1: absent */
} tsr_block;

typedef struct tsr_half { /* decoder or encoder */
    bool present;
    bool encodes;                  /* the encoder */
    int in_channels, out_channels; /* decoder: Z, 3; encoder: 3, 2Z */
    int layers, blocks, levels;    /* levels: 1 + upsamplers or downsamplers */
    tsr_layer *layer;
    tsr_block *block;
    int space_factor, time_factor; /* 8, 4 */
} tsr_half;

typedef struct tsr_vae {
    tsr_tensor_file *file;
    tsr_half decoder, encoder;
    tsr_model_info info;
} tsr_vae;

/* Frames that a layer's convolution remembers from before: kt - st, of what it reads; 0 where it has no memory. */
int tsr_layer_remembers(const tsr_layer *l);

/* Takes over file, also on failure. Prefixes (vae., first_stage_model., model.diffusion_model., model.) are seen
 * through, legacy attention names accepted. Every tensor of the architecture is checked; errors name file, tensor,
 * expected and found shape. */
tsr_status tsr_vae_create(tsr_vae **out, tsr_tensor_file *file);
void tsr_vae_destroy(tsr_vae **v);

struct tsr_model { /* the public handle */
    tsr_vae *vae;
};

#endif
