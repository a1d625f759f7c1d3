#include "options.h"

#include "say.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- values */

static bool whole_number(const char *s, int64_t *out) {
    char *end;
    errno = 0;
    long long v = strtoll(s, &end, 10);
    *out = v;
    return errno == 0 && end != s && *end == 0 && !isspace((unsigned char)*s) && *s != '+';
}

static bool plain_number(const char *s, double *out) {
    char *end;
    *out = strtod(s, &end);
    return end != s && *end == 0 && isdigit((unsigned char)*s) && isfinite(*out) && !strpbrk(s, "xX");
}

bool parse_sizes(const char *text, int n, int64_t least, int64_t *sizes) {
    for (int i = 0; i < n; i++) {
        if (!isdigit((unsigned char)*text))
            return false;
        char *end;
        errno = 0;
        sizes[i] = strtoll(text, &end, 10);
        if (sizes[i] < least || sizes[i] > 1 << 24 || errno || *end != (i + 1 < n ? 'x' : 0))
            return false;
        text = end + 1;
    }
    return true;
}

static void *field(options *o, const option *row) {
    return (char *)o + row->at;
}

static bool parse_switch(options *o, const option *row, const char *value) {
    (void)value;
    *(bool *)field(o, row) = true;
    return true;
}

static bool parse_text(options *o, const option *row, const char *value) {
    *(const char **)field(o, row) = value;
    return *value != 0;
}

static bool parse_int(options *o, const option *row, const char *value) {
    int64_t v;
    if (!whole_number(value, &v) || v < row->least || v > row->most)
        return false;
    *(int *)field(o, row) = (int)v;
    return true;
}

/* The position of the value among the words of row->values; -1: none of them. */
static int choice_of(const option *row, const char *value) {
    size_t n = strlen(value);
    int i = 0;
    for (const char *w = row->values; w; w = strchr(w, '|'), w = w ? w + 1 : NULL, i++)
        if (n && !memchr(value, '|', n) && strncmp(w, value, n) == 0 && (w[n] == '|' || w[n] == 0))
            return i;
    return -1;
}

/* Enums of the library are in the order of the words. */
static bool parse_choice(options *o, const option *row, const char *value) {
    int i = choice_of(row, value);
    if (i >= 0)
        memcpy(field(o, row), &i, sizeof i);
    return i >= 0;
}

static bool parse_word(options *o, const option *row, const char *value) {
    *(const char **)field(o, row) = value;
    return choice_of(row, value) >= 0;
}

static bool parse_depth(options *o, const option *row, const char *value) {
    int64_t v;
    (void)row;
    if (!whole_number(value, &v) || (v != 8 && v != 10 && v != 16))
        return false;
    o->writer.depth = (int)v;
    return true;
}

static bool parse_dither(options *o, const option *row, const char *value) {
    (void)row;
    o->no_dither = strcmp(value, "none") == 0;
    return o->no_dither || strcmp(value, "auto") == 0;
}

static bool parse_device(options *o, const option *row, const char *value) {
    (void)row;
    int64_t index = -1;
    bool cuda = strncmp(value, "cuda", 4) == 0;
    if (cuda && value[4] == ':' && (!whole_number(value + 5, &index) || index < 0 || index > 255))
        return false;
    if (!(cuda && (value[4] == 0 || value[4] == ':')) && strcmp(value, "cpu") != 0 && strcmp(value, "auto") != 0)
        return false;
    o->engine.device = cuda ? TSR_DEVICE_CUDA : *value == 'c' ? TSR_DEVICE_CPU : TSR_DEVICE_AUTO;
    o->engine.device_index = (int)index;
    return true;
}

static bool parse_vulkan(options *o, const option *row, const char *value) {
    if (strcmp(value, "auto") != 0)
        return parse_int(o, row, value);
    o->engine.vulkan_index = -1;
    return true;
}

static bool parse_vram(options *o, const option *row, const char *value) {
    (void)row;
    o->plan.budget = 0;
    o->plan.budget_share = 0;
    if (strcmp(value, "auto") == 0)
        return true;
    char *end;
    double v = isdigit((unsigned char)*value) ? strtod(value, &end) : -1;
    if (!(v > 0) || !isfinite(v))
        return false;
    if (strcmp(end, "%") == 0) {
        o->plan.budget_share = v / 100;
        return v <= 100;
    }
    static const char units[] = "KMGT";
    const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    if (*end && (!unit || end[1]))
        return false;
    v = unit ? ldexp(v, 10 * (int)(unit - units + 1)) : v;
    o->plan.budget = v < 0x1p62 ? (int64_t)v : 0;
    return o->plan.budget > 0;
}

/* "N" or "WxH". */
static bool pixel_pair(const char *value, int64_t least, int *width, int *height) {
    int64_t v[2];
    if (parse_sizes(value, 1, least, v))
        v[1] = v[0];
    else if (!parse_sizes(value, 2, least, v))
        return false;
    *width = (int)v[0];
    *height = (int)v[1];
    return true;
}

static bool parse_tile(options *o, const option *row, const char *value) {
    (void)row;
    o->plan.untiled = strcmp(value, "none") == 0;
    o->plan.tile_width = o->plan.tile_height = 0;
    return o->plan.untiled || strcmp(value, "auto") == 0 ||
           pixel_pair(value, 8, &o->plan.tile_width, &o->plan.tile_height);
}

static bool parse_overlap(options *o, const option *row, const char *value) {
    (void)row;
    o->plan.overlap_width = o->plan.overlap_height = -1;
    return strcmp(value, "auto") == 0 || pixel_pair(value, 0, &o->plan.overlap_width, &o->plan.overlap_height);
}

static bool parse_quality(options *o, const option *row, const char *value) {
    char *end;
    o->plan.quality = strtod(value, &end);
    return end != value && !*end && o->plan.quality >= (double)row->least && o->plan.quality <= (double)row->most;
}

static bool parse_frames(options *o, const option *row, const char *value) {
    (void)row;
    const char *colon = strchr(value, ':');
    char first[24] = "";
    o->first = o->end = 0;
    if (!colon || colon - value >= (ptrdiff_t)sizeof first || (colon == value && !colon[1]))
        return false;
    memcpy(first, value, (size_t)(colon - value));
    if ((*first && !whole_number(first, &o->first)) || (colon[1] && !whole_number(colon + 1, &o->end)))
        return false;
    return o->first >= 0 && o->first < INT32_MAX && o->end < INT32_MAX && (colon[1] ? o->end > o->first : true);
}

static bool parse_latent_scale(options *o, const option *row, const char *value) {
    (void)row;
    o->latent.scale = 0; /* what the file or the model says */
    if (strcmp(value, "model") == 0)
        return true;
    if (strcmp(value, "none") == 0)
        o->latent.scale = 1;
    else if (!plain_number(value, &o->latent.scale))
        return false;
    return o->latent.scale > 0;
}

static bool parse_fps(options *o, const option *row, const char *value) {
    (void)row;
    double den = 1;
    char num[32];
    const char *slash = strchr(value, '/');
    size_t n = slash ? (size_t)(slash - value) : strlen(value);
    if (n >= sizeof num || (slash && !plain_number(slash + 1, &den)))
        return false;
    memcpy(num, value, n);
    num[n] = 0;
    if (!plain_number(num, &o->writer.fps))
        return false;
    o->writer.fps /= den;
    o->fps_given = true;
    return o->writer.fps >= 0.01 && o->writer.fps <= 1000;
}

static bool parse_sample(options *o, const option *row, const char *value) {
    (void)row;
    o->sample = true;
    o->seed = 0;
    return !value || (whole_number(value, &o->seed) && o->seed >= 0);
}

static bool parse_scale(options *o, const option *row, const char *value) {
    (void)row;
    return plain_number(value, &o->scale) && o->scale >= 0.5 && o->scale <= 4;
}

static bool parse_format(options *o, const option *row, const char *value) {
    (void)row;
    return tsr_format_from_name(value, &o->writer.format);
}

/* ---------------------------------------------------------------- the table */

#define AT(member) offsetof(options, member)
#define ON(name) (1u << CMD_##name)
enum {
    DECODING = ON(RENDER) | ON(PLAN) | ON(BENCH) | ON(TUNE) | ON(VIEW),
    PLANNED = DECODING | ON(ENCODE),
    WRITING = ON(RENDER) | ON(ENCODE) | ON(COMPARE) | ON(CONVERT) | ON(TUNE),
    EVERY = PLANNED | WRITING | ON(INFO) | ON(INSPECT),
};

const option option_table[] = {
    {'o', "output", "FILE|-", NULL, "the file to write; with %05d in it numbered pictures; - for standard output",
        WRITING, parse_text, AT(writer.path), 0, 0},
    {0, "format", "png|mp4|mkv|webm|y4m|rgb24|rgb48|npy|safetensors|null", "by the suffix",
        "of the output; null decodes and writes nothing", ON(RENDER), parse_format, 0, 0, 0},
    {0, "frames", "A:B|A:|:B", "all", "frames of the video, from 0, B not included",
        (PLANNED | ON(COMPARE)) & ~ON(BENCH) & ~ON(TUNE) & ~ON(VIEW), parse_frames, 0, 0, 0},
    {0, "fps", "N|N/D", "24", "frames a second of a video; 23.976 and 30000/1001 are exact", ON(RENDER) | ON(VIEW),
        parse_fps, 0, 0, 0},
    {0, "like", "CLIP", NULL, "takes frame rate and sound from this clip", ON(RENDER), parse_text, AT(like), 0, 0},
    {0, "batch-overlap", "M", "0", "several latents: as many frames of one fade into the next", ON(RENDER), parse_int,
        AT(batch_overlap), 0, 100000},
    {0, "psnr", NULL, NULL,
        "decodes a sample of frames again in f32 and reports PSNR and SSIM; with --like also against the clip",
        ON(RENDER), parse_switch, AT(psnr), 0, 0},
    {0, "codec", "NAME", "libx264, in webm libvpx-vp9", "libav's encoder", ON(RENDER), parse_text, AT(writer.codec), 0,
        0},
    {0, "crf", "N", "the codec's: 16 for libx264", "quality of a video, 0 is best", ON(RENDER), parse_int,
        AT(writer.crf), 0, 63},
    {0, "depth", "8|10|16", "8", "bits: 8 or 10 in a video, 8 or 16 in a picture", ON(RENDER), parse_depth, 0, 0, 0},
    {0, "dither", "auto|none", "auto", "8-bit outputs are dithered", ON(RENDER), parse_dither, 0, 0, 0},
    {'y', "overwrite", NULL, "ask on a terminal, refuse elsewhere", "replace outputs that exist", WRITING, parse_switch,
        AT(writer.overwrite), 0, 0},
    {0, "resume", NULL, NULL,
        "goes on where a killed render with this option stopped; its journal is the output with .resume added",
        ON(RENDER), parse_switch, AT(resume), 0, 0},
    {'m', "model", "FILE|FOLDER", "$TESSERA_MODEL, the only VAE in ./models, the demo model",
        "the VAE: safetensors or GGUF, or a folder that holds just one", PLANNED, parse_text, AT(model), 0, 0},
    {0, "latent-scale", "model|none|NUMBER", "model", "what a latent file's values are multiplied by",
        ON(RENDER) | ON(PLAN) | ON(ENCODE) | ON(TUNE) | ON(VIEW), parse_latent_scale, 0, 0, 0},
    {0, "layout", "auto|bcfhw|bfhwc", "auto",
        "order of a latent's dimensions; auto takes channels first where both fit",
        ON(RENDER) | ON(PLAN) | ON(TUNE) | ON(VIEW), parse_choice, AT(latent.layout), 0, 0},
    {0, "device", "auto|cpu|cuda|cuda:N", "auto", "what decodes", PLANNED | ON(INFO) | ON(CONVERT), parse_device, 0, 0,
        0},
    {0, "vulkan", "auto|N", "auto", "what blends; auto: CUDA's own device, else the best GPU, else software",
        PLANNED | ON(INFO), parse_vulkan, AT(engine.vulkan_index), 0, 255},
    {0, "threads", "N", "one a core", "CPU threads that decode", PLANNED | ON(INFO), parse_int, AT(engine.threads), 1,
        4096},
    {0, "precision", "auto|f32|fp16|bf16|fp8|int8", "auto", "of the decode", PLANNED, parse_choice, AT(plan.precision),
        0, 0},
    {0, "quality", "DB", NULL,
        "PSNR against f32 to hold: resnets that lose too much in 8 bits stay wide; measured once for a model", DECODING,
        parse_quality, 0, 20, 100},
    {0, "vram", "auto|SIZE|N%", "auto: free memory less 10%", "device memory for everything: 13G, 800M, 80%", PLANNED,
        parse_vram, 0, 0, 0},
    {0, "tile", "auto|none|WxH|N", "auto", "in output pixels; none forbids tiles", PLANNED & ~ON(TUNE), parse_tile, 0,
        0, 0},
    {0, "overlap", "auto|WxH|N", "auto", "of tiles, in output pixels", PLANNED, parse_overlap, 0, 0, 0},
    {0, "exact", NULL, NULL, "no tiles but those whose result is that of whole frames: bands of rows", PLANNED,
        parse_switch, AT(plan.exact), 0, 0},
    {0, "caches", "auto|device|host", "auto", "where temporal caches live", PLANNED, parse_choice, AT(plan.caches), 0,
        0},
    {0, "fullscreen", NULL, NULL, "begins on the whole screen", ON(VIEW), parse_switch, AT(fullscreen), 0, 0},
    {0, "geometry", "WxH|WxH+X+Y", "1280x800", "size and place of the window", ON(VIEW), parse_text, AT(geometry), 0,
        0},
    {0, "scale", "N", "the display's", "size of text and controls; 2 is twice as large", ON(VIEW), parse_scale, 0, 0,
        0},
    {0, "offscreen", "FILE", NULL, "draws the window to this PNG instead, without a window system, when all is decoded",
        ON(VIEW), parse_text, AT(offscreen), 0, 0},
    {0, "script", "FILE|-", NULL, "plays input from this file, without a window system", ON(VIEW), parse_text,
        AT(script), 0, 0},
    {0, "repeat", "N", "3", "times everything is measured", ON(BENCH), parse_int, AT(repeat), 1, 1000},
    {0, "sample", "SEED", "the mean",
        "a draw from the latent's distribution; the same seed, 0 where none is given, draws the same", ON(ENCODE),
        parse_sample, 0, 0, 0, true},
    {0, "stats", NULL, NULL, "also writes mean and logvar, unscaled, to a safetensors file", ON(ENCODE), parse_switch,
        AT(stats), 0, 0, false},
    {0, "type", "f32|f16|bf16|q8_0|q5_1|q5_0|q4_1|q4_0", "as stored", "of the weights", ON(CONVERT), parse_word,
        AT(type), 0, 0, false},
    {0, "block", "N", "16", "side of the blocks that the worst one is looked for among, in pixels", ON(COMPARE),
        parse_int, AT(block), 1, 4096, false},
    {0, "trace", "FILE", NULL, "writes a Chrome trace of every stage, op and tile", ON(RENDER), parse_text, AT(trace),
        0, 0},
    {0, "progress", "auto|always|never", "auto: on a terminal", "frames, rate and time left, on standard error",
        ON(RENDER) | ON(ENCODE), parse_choice, AT(progress), 0, 0},
    {0, "json", NULL, NULL, "one JSON object a line on standard output instead of text", EVERY, parse_switch, AT(json),
        0, 0},
    {'v', "verbose", NULL, NULL, "say more", EVERY, parse_switch, AT(verbose), 0, 0},
    {'q', "quiet", NULL, NULL, "say nothing but errors", EVERY, parse_switch, AT(quiet), 0, 0},
    {'h', "help", NULL, NULL, "show this", EVERY, parse_switch, AT(help), 0, 0},
};
const int option_count = sizeof option_table / sizeof *option_table;

/* ---------------------------------------------------------------- parsing */

static const option *find_long(const char *name, size_t n) {
    for (int i = 0; i < option_count; i++)
        if (strlen(option_table[i].name) == n && strncmp(option_table[i].name, name, n) == 0)
            return &option_table[i];
    return NULL;
}

static const option *find_letter(char letter) {
    for (int i = 0; letter && i < option_count; i++)
        if (option_table[i].letter == letter)
            return &option_table[i];
    return NULL;
}

/* Whether the option exists and is one of this command's. */
static bool belongs(const options *o, const option *row, const char *said) {
    const char *name = o->command->name;
    if (!row)
        usage_error("unknown option: %s; see tessera %s --help", said, name);
    else if (!(row->commands & 1u << (o->command - commands)) && row->at != AT(help))
        usage_error("wrong option: %s has no --%s; see tessera %s --help", name, row->name, name);
    else
        return true;
    return false;
}

static bool take(options *o, const option *row, const char *value) {
    if (row->values && !value && !row->optional)
        return usage_error("no value: --%s; give %s", row->name, row->values), false;
    if (!row->values && value)
        return usage_error("unwanted value: --%s=%s; it takes none", row->name, value), false;
    if (row->parse(o, row, value))
        return true;
    if (row->most)
        return usage_error("bad value: --%s %s; give %s from %lld to %lld", row->name, value, row->values,
                   (long long)row->least, (long long)row->most),
               false;
    return usage_error("bad value: --%s %s; give %s", row->name, value, row->values), false;
}

/* --name, --name=value, --name value. *i moves past what was used. */
static bool parse_long(options *o, int argc, char **argv, int *i) {
    const char *name = argv[*i] + 2, *equals = strchr(name, '=');
    const option *row = find_long(name, equals ? (size_t)(equals - name) : strlen(name));
    if (!belongs(o, row, argv[*i]))
        return false;
    const char *value = equals ? equals + 1 : NULL;
    int64_t number;
    if (!value && row->values && *i + 1 < argc && (!row->optional || whole_number(argv[*i + 1], &number)))
        value = argv[++*i];
    return take(o, row, value);
}

/* -y, -yq, -mFILE, -m FILE. */
static bool parse_letters(options *o, int argc, char **argv, int *i) {
    for (const char *p = argv[*i] + 1; *p; p++) {
        char said[3] = {'-', *p, 0};
        const option *row = find_letter(*p);
        if (!belongs(o, row, said))
            return false;
        if (!row->values) {
            if (!take(o, row, NULL))
                return false;
            continue;
        }
        const char *value = p[1] ? p + 1 : *i + 1 < argc ? argv[++*i] : NULL;
        return take(o, row, value);
    }
    return true;
}

bool options_parse(options *o, int argc, char **argv) {
    const command *c = o->command;
    *o = (options){.command = c,
        .engine = TSR_ENGINE_PARAMS_DEFAULT,
        .plan = TSR_PLAN_PARAMS_DEFAULT,
        .latent = TSR_LATENT_PARAMS_DEFAULT,
        .writer = TSR_WRITER_PARAMS_DEFAULT,
        .repeat = 3,
        .block = 16};
    o->args = argv + 2; /* moved together in place */
    bool only_args = false;
    for (int i = 2; i < argc; i++) {
        char *a = argv[i];
        bool is_option = !only_args && a[0] == '-' && a[1];
        if (is_option && strcmp(a, "--") == 0)
            only_args = true;
        else if (!is_option)
            o->args[o->count++] = a;
        else if (!(a[1] == '-' ? parse_long(o, argc, argv, &i) : parse_letters(o, argc, argv, &i)))
            return false;
    }
    if (o->help)
        return true;
    if (o->count < c->least)
        return usage_error("nothing to %s: give %s; see tessera %s --help", c->name, c->args, c->name), false;
    if (o->count > c->most)
        return usage_error("too many arguments: %s; see tessera %s --help", o->args[c->most], c->name), false;
    if (o->quiet && o->verbose)
        return usage_error("-q and -v: choose one"), false;
    return true;
}
