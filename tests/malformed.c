#include "malformed.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- a growing file */

typedef struct bytes {
    uint8_t *data;
    size_t size, room;
} bytes;

static void put(bytes *b, const void *p, size_t n) {
    if (n == 0)
        return;
    if (b->size + n > b->room) {
        b->room = 2 * (b->size + n);
        b->data = realloc(b->data, b->room);
        if (!b->data)
            abort();
    }
    if (p)
        memcpy(b->data + b->size, p, n);
    else
        memset(b->data + b->size, 0, n);
    b->size += n;
}

static void set_number(uint8_t *p, uint64_t v, size_t n) {
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static void put_number(bytes *b, uint64_t v, size_t n) {
    uint8_t p[8];
    set_number(p, v, 8);
    put(b, p, n);
}

typedef struct sink {
    malformed_fn fn;
    void *ctx;
    size_t count;
} sink;

/* Hands the case on and empties b for the next. */
static void give(sink *s, const char *prefix, const char *name, bool latent, bytes *b, const char *says) {
    char file[128];
    snprintf(file, sizeof file, "%s_%s", prefix, name);
    for (char *p = file; *p; p++)
        if (*p == ' ' || *p == '/')
            *p = '_';
    s->fn(s->ctx, &(malformed){file, latent, b->data, b->size, says});
    s->count++;
    b->size = 0;
}

/* ---------------------------------------------------------------- safetensors */

static void put_safetensors(bytes *b, const char *json, uint64_t header, size_t data) {
    put_number(b, header, 8);
    put(b, json, strlen(json));
    put(b, NULL, data);
}

#define ONE(entry) "{\"a\":{" entry "}}"
#define A8 "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}" /* a good tensor of 8 bytes */
static const char good_json[] =
    "{\"__metadata__\":{\"k\":\"v\"}," A8 ",\"b.c\":{\"dtype\":\"F16\",\"shape\":[2,1,2],\"data_offsets\":[8,16]}}  ";

static void bad_safetensors(sink *s) {
    static const struct {
        const char *name, *json;
        size_t data;
        const char *says;
    } cases[] = {
        {"json cut", "{\"a\":", 8, "not valid JSON"},
        {"json unterminated string", "{\"a", 8, "not valid JSON"},
        {"json bad escape", "{\"\\q\":{}}", 8, "not valid JSON"},
        {"json bad surrogate", "{\"\\ud800\":{}}", 8, "not valid JSON"},
        {"json trailing comma", "{" A8 ",}", 8, "not valid JSON"},
        {"json two objects", "{" A8 "}{}", 8, "goes on after"},
        {"json rubbish after", "{" A8 "} x", 8, "goes on after"},
        {"same name twice",
            "{" A8 ","
            "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}",
            16, "tensor a: stands in the file twice"},
        {"entry number", "{\"a\":1}", 0, "tensor a: its header entry is not an object"},
        {"entry null", "{\"a\":null}", 0, "tensor a: its header entry is not an object"},
        {"entry list", "{\"a\":[1]}", 0, "tensor a: its header entry is not an object"},
        {"dtype missing", ONE("\"shape\":[2],\"data_offsets\":[0,8]"), 8, "tensor a: no dtype"},
        {"dtype number", ONE("\"dtype\":32,\"shape\":[2],\"data_offsets\":[0,8]"), 8, "tensor a: no dtype"},
        {"dtype twice", ONE("\"dtype\":\"F32\",\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,8]"), 8,
            "tensor a: no dtype, or two"},
        {"dtype unknown", ONE("\"dtype\":\"F33\",\"shape\":[2],\"data_offsets\":[0,8]"), 8, "type \"F33\""},
        {"dtype empty", ONE("\"dtype\":\"\",\"shape\":[2],\"data_offsets\":[0,8]"), 8, "type \"\" is not supported"},
        {"dtype lower case", ONE("\"dtype\":\"f32\",\"shape\":[2],\"data_offsets\":[0,8]"), 8, "type \"f32\""},
        {"dtype of gguf", ONE("\"dtype\":\"Q8_0\",\"shape\":[32],\"data_offsets\":[0,34]"), 34, "type \"Q8_0\""},
        {"shape missing", ONE("\"dtype\":\"F32\",\"data_offsets\":[0,8]"), 8, "tensor a: no shape"},
        {"shape number", ONE("\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]"), 8,
            "tensor a: no shape, or not a list"},
        {"shape object", ONE("\"dtype\":\"F32\",\"shape\":{\"x\":2},\"data_offsets\":[0,8]"), 8,
            "tensor a: no shape, or not a list"},
        {"shape twice", ONE("\"dtype\":\"F32\",\"shape\":[2],\"shape\":[2],\"data_offsets\":[0,8]"), 8,
            "tensor a: no shape"},
        {"dim negative", ONE("\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]"), 8, "dimension 0"},
        {"dims negative twice", ONE("\"dtype\":\"F32\",\"shape\":[-1,-2],\"data_offsets\":[0,8]"), 8, "dimension 0"},
        {"dim fraction", ONE("\"dtype\":\"F32\",\"shape\":[1,1.5],\"data_offsets\":[0,8]"), 8, "dimension 1"},
        {"dim huge", ONE("\"dtype\":\"F32\",\"shape\":[1e300],\"data_offsets\":[0,8]"), 8, "dimension 0"},
        {"dim infinite", ONE("\"dtype\":\"F32\",\"shape\":[1e999],\"data_offsets\":[0,8]"), 8, "dimension 0"},
        {"dim inexact", ONE("\"dtype\":\"F32\",\"shape\":[9007199254740993],\"data_offsets\":[0,8]"), 8, "dimension 0"},
        {"dim string", ONE("\"dtype\":\"F32\",\"shape\":[\"2\"],\"data_offsets\":[0,8]"), 8, "dimension 0"},
        {"dim null", ONE("\"dtype\":\"F32\",\"shape\":[null],\"data_offsets\":[0,8]"), 8, "dimension 0"},
        {"dim list", ONE("\"dtype\":\"F32\",\"shape\":[[2]],\"data_offsets\":[0,8]"), 8, "dimension 0"},
        {"dims too many", ONE("\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]"), 8,
            "more than 8 dimensions"},
        {"shape overflows", ONE("\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,2],\"data_offsets\":[0,8]"), 8,
            "overflows"},
        {"shape wraps to 2",
            ONE("\"dtype\":\"F32\",\"shape\":[4294967297,4294967295,18446744073709],\"data_offsets\":[0,8]"), 8,
            "overflows"},
        {"shape overflows then 0", ONE("\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,0],\"data_offsets\":[0,0]"),
            0, "overflows"},
        {"bytes overflow", ONE("\"dtype\":\"F32\",\"shape\":[2147483648,4294967296],\"data_offsets\":[0,8]"), 8,
            "overflows"},
        {"offsets missing", ONE("\"dtype\":\"F32\",\"shape\":[2]"), 8, "data_offsets are not two"},
        {"offsets one", ONE("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8]"), 8, "data_offsets are not two"},
        {"offsets three", ONE("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4,8]"), 8,
            "data_offsets are not two"},
        {"offsets strings", ONE("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[\"0\",\"8\"]"), 8,
            "data_offsets are not two"},
        {"offsets negative", ONE("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]"), 8,
            "data_offsets are not two"},
        {"offsets fraction", ONE("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8.5]"), 8,
            "data_offsets are not two"},
        {"offsets infinite", ONE("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,1e999]"), 8,
            "data_offsets are not two"},
        {"offsets twice", ONE("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"data_offsets\":[0,8]"), 8,
            "data_offsets are not two"},
        {"offsets reversed", ONE("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]"), 8, "leave the file"},
        {"offsets beyond", ONE("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]"), 8, "leave the file"},
        {"offsets far beyond",
            ONE("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[9007199254740983,9007199254740991]"), 8,
            "leave the file"},
        {"end beyond by one", ONE("\"dtype\":\"U8\",\"shape\":[9],\"data_offsets\":[0,9]"), 8, "leave the file"},
        {"span too small", ONE("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]"), 4, "takes 8 bytes"},
        {"span too large", ONE("\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,8]"), 8, "takes 4 bytes"},
        {"span of nothing", ONE("\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,8]"), 8, "takes 0 bytes"},
        {"scalar without data", ONE("\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,0]"), 0, "takes 4 bytes"},
        {"overlap whole", "{" A8 ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "overlaps"},
        {"overlap part", "{" A8 ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12, "overlaps"},
        {"hole at the start", ONE("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]"), 12, "leaves a hole"},
        {"hole between", "{" A8 ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[12,20]}}", 20,
            "tensor b: its data leaves a hole"},
        {"bytes at the end", "{" A8 "}", 9, "belong to no tensor"},
        {"no tensor but data", "{}", 8, "belong to no tensor"},
        {"metadata list", "{\"__metadata__\":[]," A8 "}", 8, "__metadata__ is not an object"},
        {"metadata number", "{\"__metadata__\":{\"k\":1}," A8 "}", 8, "__metadata__ k is not a string"},
        {"metadata twice", "{\"__metadata__\":{},\"__metadata__\":{}," A8 "}", 8, "two __metadata__"},
        {"metadata key twice", "{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}," A8 "}", 8, "metadata k stands"},
        {"name with newline", "{\"a\\nb\":1}", 0, "tensor a?b"},
    };
    bytes b = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_safetensors(&b, cases[i].json, strlen(cases[i].json), cases[i].data);
        give(s, "safetensors", cases[i].name, false, &b, cases[i].says);
    }
    static const struct {
        const char *name;
        uint64_t header;
        const char *says;
    } lengths[] = {
        {"length 0", 0, "not valid JSON"},
        {"length 1", 1, "not valid JSON"},
        {"length short", sizeof good_json - 4, "not valid JSON"},
        {"length one more", sizeof good_json, "holds a zero byte"},
        {"length beyond", 4096, "the file has"},
        {"length 2^63", (uint64_t)1 << 63, "the file has"},
        {"length 2^64-1", UINT64_MAX, "the file has"},
        {"length 2^64-8", UINT64_MAX - 7, "the file has"},
    };
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        put_safetensors(&b, good_json, lengths[i].header, 16);
        give(s, "safetensors", lengths[i].name, false, &b, lengths[i].says);
    }
    put_safetensors(&b, good_json, sizeof good_json - 1, 16);
    b.data[20] = 0; /* inside "__metadata__" */
    give(s, "safetensors", "zero byte in the header", false, &b, "holds a zero byte");
    put_safetensors(&b, "{\"a\":", 5 + 20000, 0);
    for (int i = 0; i < 20000; i++)
        put(&b, "[", 1);
    give(s, "safetensors", "nested 20000 deep", false, &b, "not valid JSON");
    put_safetensors(&b, "{}", (16 << 20) + 1, 0);
    put(&b, NULL, (16 << 20) - 1);
    give(s, "safetensors", "header over 16 MiB", false, &b, "limit of 16 MiB");
    free(b.data);
}

/* ---------------------------------------------------------------- GGUF */

typedef enum { /* places in the good file that cases write into */
    G_VERSION,
    G_TENSORS,
    G_KVS,
    G_KEY_LENGTH,
    G_KEY,
    G_KEY_TYPE,
    G_STRING_LENGTH,
    G_ALIGNMENT_TYPE,
    G_ALIGNMENT,
    G_SHAPE_TYPE,
    G_SHAPE_COUNT,
    G_SHAPE,
    G_LIST_KEY,
    G_LIST_TYPE,
    G_LIST_COUNT,
    G_LIST_LENGTH,
    G_NAME_LENGTH,
    G_NAME,
    G_NDIM,
    G_DIM,
    G_DIM_1,
    G_TYPE,
    G_OFFSET,
    G_NAME_2,
    G_DIM_2,
    G_TYPE_2,
    G_OFFSET_2,
    G_DIM_3,
    G_OFFSET_3,
    G_PLACES
} place;

typedef struct gguf_file {
    bytes b;
    size_t at[G_PLACES];
} gguf_file;

static void mark(gguf_file *g, place p) {
    g->at[p] = g->b.size;
}

static void put_gguf_string(gguf_file *g, const char *text) {
    put_number(&g->b, strlen(text), 8);
    put(&g->b, text, strlen(text));
}

static void put_gguf_kvs(gguf_file *g) {
    mark(g, G_KEY_LENGTH);
    put_number(&g->b, 20, 8);
    mark(g, G_KEY);
    put(&g->b, "general.architecture", 20);
    mark(g, G_KEY_TYPE);
    put_number(&g->b, 8, 4);
    mark(g, G_STRING_LENGTH);
    put_gguf_string(g, "seedvr2_vae");
    put_gguf_string(g, "general.alignment");
    mark(g, G_ALIGNMENT_TYPE);
    put_number(&g->b, 4, 4);
    mark(g, G_ALIGNMENT);
    put_number(&g->b, 32, 4);
    put_gguf_string(g, "comfy.gguf.orig_shape.w1");
    put_number(&g->b, 9, 4);
    mark(g, G_SHAPE_TYPE);
    put_number(&g->b, 5, 4);
    mark(g, G_SHAPE_COUNT);
    put_number(&g->b, 5, 8);
    mark(g, G_SHAPE);
    for (int i = 0; i < 5; i++) /* [2, 4, 2, 2, 2] */
        put_number(&g->b, i == 1 ? 4 : 2, 4);
    mark(g, G_LIST_KEY);
    put_gguf_string(g, "tessera.test.example.xyz"); /* as long as the key of the shape of w2 */
    put_number(&g->b, 9, 4);
    mark(g, G_LIST_TYPE);
    put_number(&g->b, 8, 4);
    mark(g, G_LIST_COUNT);
    put_number(&g->b, 2, 8);
    mark(g, G_LIST_LENGTH);
    put_gguf_string(g, "one");
    put_gguf_string(g, "three");
}

static void put_gguf_tensors(gguf_file *g) {
    mark(g, G_NAME_LENGTH);
    put_number(&g->b, 2, 8);
    mark(g, G_NAME);
    put(&g->b, "w1", 2); /* Q8_0, [2, 32] flattened from five dimensions, 68 bytes */
    mark(g, G_NDIM);
    put_number(&g->b, 2, 4);
    mark(g, G_DIM);
    put_number(&g->b, 32, 8);
    mark(g, G_DIM_1);
    put_number(&g->b, 2, 8);
    mark(g, G_TYPE);
    put_number(&g->b, 8, 4);
    mark(g, G_OFFSET);
    put_number(&g->b, 0, 8);
    mark(g, G_NAME_2);
    put_gguf_string(g, "w2"); /* F32 [4] */
    put_number(&g->b, 1, 4);
    mark(g, G_DIM_2);
    put_number(&g->b, 4, 8);
    mark(g, G_TYPE_2);
    put_number(&g->b, 0, 4);
    mark(g, G_OFFSET_2);
    put_number(&g->b, 96, 8);
    put_gguf_string(g, "w3"); /* F16 with five dimensions as they are, [2, 1, 3, 1, 2] */
    put_number(&g->b, 5, 4);
    mark(g, G_DIM_3);
    for (int i = 0; i < 5; i++)
        put_number(&g->b, (const uint8_t[]){2, 1, 3, 1, 2}[i], 8);
    put_number(&g->b, 1, 4);
    mark(g, G_OFFSET_3);
    put_number(&g->b, 128, 8);
}

static void good_gguf(gguf_file *g) {
    g->b.size = 0;
    put(&g->b, "GGUF", 4);
    mark(g, G_VERSION);
    put_number(&g->b, 3, 4);
    mark(g, G_TENSORS);
    put_number(&g->b, 3, 8);
    mark(g, G_KVS);
    put_number(&g->b, 4, 8);
    put_gguf_kvs(g);
    put_gguf_tensors(g);
    while (g->b.size % 32)
        put_number(&g->b, 0, 1);
    for (int i = 0; i < 152; i++) /* w1 in 68, w2 in 16 from 96, w3 in 24 from 128 */
        put_number(&g->b, (uint64_t)(i * 7 & 0x3f), 1);
}

static void bad_gguf(sink *s) {
    static const struct {
        const char *name;
        place at;
        size_t n;
        uint64_t value;
        const char *says;
    } cases[] = {
        {"version 0", G_VERSION, 4, 0, "GGUF version 0"},
        {"version 1", G_VERSION, 4, 1, "GGUF version 1"},
        {"version 4", G_VERSION, 4, 4, "GGUF version 4"},
        {"version max", G_VERSION, 4, UINT32_MAX, "GGUF version 4294967295"},
        {"big-endian", G_VERSION, 4, 3u << 24, "big-endian"},
        {"tensors max", G_TENSORS, 8, UINT64_MAX, "tensors do not fit"},
        {"tensors 2^63", G_TENSORS, 8, (uint64_t)1 << 63, "tensors do not fit"},
        {"tensors one more", G_TENSORS, 8, 4, ""},
        {"kvs max", G_KVS, 8, UINT64_MAX, "key-values do not fit"},
        {"kvs 2^32", G_KVS, 8, (uint64_t)1 << 32, "key-values do not fit"},
        {"kvs one more", G_KVS, 8, 5, ""},
        {"kvs one fewer", G_KVS, 8, 3, ""},
        {"kvs none", G_KVS, 8, 0, ""},
        {"key length max", G_KEY_LENGTH, 8, UINT64_MAX, "a key"},
        {"key length beyond", G_KEY_LENGTH, 8, 100000, "a key"},
        {"key length one more", G_KEY_LENGTH, 8, 21, ""},
        {"key length 0", G_KEY_LENGTH, 8, 0, "a key at byte 32 is empty"},
        {"key with zero byte", G_KEY, 1, 0, "holds a zero byte"},
        {"value type 13", G_KEY_TYPE, 4, 13, "values of type 13"},
        {"value type max", G_KEY_TYPE, 4, UINT32_MAX, "values of type 4294967295"},
        {"value type array", G_KEY_TYPE, 4, 9, ""},
        {"string length max", G_STRING_LENGTH, 8, UINT64_MAX, "a string"},
        {"string length 2^63", G_STRING_LENGTH, 8, (uint64_t)1 << 63, "a string"},
        {"string length one more", G_STRING_LENGTH, 8, 12, ""},
        {"alignment 0", G_ALIGNMENT, 4, 0, "power of two"},
        {"alignment 48", G_ALIGNMENT, 4, 48, "power of two"},
        {"alignment max", G_ALIGNMENT, 4, UINT32_MAX, "power of two"},
        {"alignment 2^31", G_ALIGNMENT, 4, 1u << 31, ""},
        {"alignment a float", G_ALIGNMENT_TYPE, 4, 6, "power of two"},
        {"alignment signed", G_ALIGNMENT_TYPE, 4, 5, "power of two"},
        {"shape of floats", G_SHAPE_TYPE, 4, 6, "is not an array of"},
        {"shape of bytes", G_SHAPE_TYPE, 4, 0, "is not an array of"},
        {"shape of strings", G_SHAPE_TYPE, 4, 8, ""},
        {"shape of arrays", G_SHAPE_TYPE, 4, 9, "arrays of type 9"},
        {"shape type max", G_SHAPE_TYPE, 4, UINT32_MAX, "arrays of type 4294967295"},
        {"shape count 0", G_SHAPE_COUNT, 8, 0, "is not an array of"},
        {"shape count max", G_SHAPE_COUNT, 8, UINT64_MAX, "an array"},
        {"shape count wraps", G_SHAPE_COUNT, 8, ((uint64_t)1 << 62) + 5, "an array"},
        {"shape count 9", G_SHAPE_COUNT, 8, 9, "is not an array of 1 to 8"},
        {"shape negative", G_SHAPE, 4, (uint32_t)-2, "negative"},
        {"shape other product", G_SHAPE, 4, 3, "recorded shape"},
        {"shape 0", G_SHAPE, 4, 0, "recorded shape"},
        {"list of type 12345", G_LIST_TYPE, 4, 12345, "arrays of type 12345"},
        {"list of lists", G_LIST_TYPE, 4, 9, "arrays of type 9"},
        {"list count max", G_LIST_COUNT, 8, UINT64_MAX, ""},
        {"list count one more", G_LIST_COUNT, 8, 3, ""},
        {"list of doubles max", G_LIST_COUNT, 8, UINT64_MAX / 8 + 2, ""},
        {"list string length max", G_LIST_LENGTH, 8, UINT64_MAX, "a string of an array"},
        {"name length max", G_NAME_LENGTH, 8, UINT64_MAX, "the name of a tensor"},
        {"name length 0", G_NAME_LENGTH, 8, 0, "the name of a tensor at byte 256 is empty"},
        {"name length one more", G_NAME_LENGTH, 8, 3, ""},
        {"name with zero byte", G_NAME, 1, 0, "holds a zero byte"},
        {"same name twice", G_NAME, 2, 0x3277, "tensor w2: stands in the file twice"},
        {"dimensions 9", G_NDIM, 4, 9, "tensor w1: 9 dimensions"},
        {"dimensions max", G_NDIM, 4, UINT32_MAX, "tensor w1: 4294967295 dimensions"},
        {"dimensions 1", G_NDIM, 4, 1, ""},
        {"dimensions 0", G_NDIM, 4, 0, ""},
        {"dim 0", G_DIM, 8, 0, "tensor w1"},
        {"dim not of blocks", G_DIM, 8, 31, "tensor w1: rows of [2, 31]"},
        {"dim max", G_DIM, 8, UINT64_MAX, "tensor w1: dimension 1"},
        {"dim 2^63-32", G_DIM, 8, INT64_MAX - 31, "overflow"},
        {"dim 2^62", G_DIM, 8, (uint64_t)1 << 62, "tensor w1"},
        {"rows 2^60", G_DIM_1, 8, (uint64_t)1 << 60, "overflows"},
        {"rows one more", G_DIM_1, 8, 3, "recorded shape"},
        {"type 31", G_TYPE, 4, 31, "ggml type 31"},
        {"type max", G_TYPE, 4, UINT32_MAX, "ggml type 4294967295"},
        {"type IQ4_NL", G_TYPE, 4, 20, "ggml type 20"},
        {"type Q6_K", G_TYPE, 4, 14, "tensor w1: rows of"},
        {"type F64", G_TYPE, 4, 28, "tensor w1: its data leaves the file"},
        {"offset 1", G_OFFSET, 8, 1, "multiple of the alignment"},
        {"offset max", G_OFFSET, 8, UINT64_MAX, "multiple of the alignment"},
        {"offset 2^64-32", G_OFFSET, 8, UINT64_MAX - 31, "leaves the file"},
        {"offset at the end", G_OFFSET, 8, 160, "leaves the file"},
        {"offset into another", G_OFFSET, 8, 64, "overlaps"},
        {"offset of another", G_OFFSET_2, 8, 128, "overlaps"},
        {"offset inside another", G_OFFSET_2, 8, 64, "tensor w2: its data overlaps that of w1"},
        {"second dim too large", G_DIM_2, 8, 9, "tensor w3: its data overlaps that of w2"},
        {"second dim beyond", G_DIM_2, 8, 16, "leaves the file"},
        {"second dim 2^62", G_DIM_2, 8, (uint64_t)1 << 62, "overflow"},
        {"second type F64", G_TYPE_2, 4, 28, ""},
        {"third dim too large", G_DIM_3, 8, 4, "leaves the file"},
        {"third offset beyond", G_OFFSET_3, 8, 160, "leaves the file"},
    };
    gguf_file g = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        good_gguf(&g);
        set_number(g.b.data + g.at[cases[i].at], cases[i].value, cases[i].n);
        /* F64 in the place of F32 [4] takes 32 bytes from 96 and fits: let it run into the third tensor */
        if (cases[i].at == G_TYPE_2)
            set_number(g.b.data + g.at[G_DIM_2], 5, 8);
        give(s, "gguf", cases[i].name, false, &g.b, cases[i].says);
    }
    good_gguf(&g);
    memcpy(g.b.data + g.at[G_LIST_KEY] + 8, "comfy.gguf.orig_shape.w1", 24);
    give(s, "gguf", "shape key twice", false, &g.b, "is not an array of");
    good_gguf(&g);
    memcpy(g.b.data + g.at[G_NAME_2] + 8, "w1", 2);
    give(s, "gguf", "second name as the first", false, &g.b, "tensor w1: stored as [4]");
    good_gguf(&g);
    memcpy(g.b.data + g.at[G_NAME_2] + 8, "w3", 2);
    give(s, "gguf", "second name as the third", false, &g.b, "tensor w3: stands in the file twice");
    free(g.b.data);
}

/* ---------------------------------------------------------------- npy */

static void put_npy(bytes *b, int version, const char *dictionary, size_t data) {
    uint8_t magic[8] = {0x93, 'N', 'U', 'M', 'P', 'Y', (uint8_t)version, 0};
    put(b, magic, 8);
    put_number(b, strlen(dictionary), version == 1 ? 2 : 4);
    put(b, dictionary, strlen(dictionary));
    put(b, NULL, data);
}

#define NPY(descr, order, shape) "{'descr': " descr ", 'fortran_order': " order ", 'shape': " shape ", }\n"

static void bad_npy(sink *s) {
    static const struct {
        const char *name, *dictionary;
        size_t data;
        const char *says;
    } cases[] = {
        {"no dictionary", "12", 0, "not a dictionary"},
        {"empty dictionary", "{}", 0, "does not hold just"},
        {"empty header", "", 0, "cut short"},
        {"unterminated", "{'descr': '<f4', 'fortran_order': False, 'shape': (2,", 8, "npy header"},
        {"unterminated key", "{'descr", 8, "not a dictionary"},
        {"no colon", "{'descr' '<f4'}", 8, "not a dictionary"},
        {"rubbish after", NPY("'<f4'", "False", "(2,)") "x", 8, "does not hold just"},
        {"no shape", "{'descr': '<f4', 'fortran_order': False}", 8, "does not hold just"},
        {"no descr", "{'fortran_order': False, 'shape': (2,)}", 8, "does not hold just"},
        {"descr twice", "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", 8, "key 'descr'"},
        {"unknown key", "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'x': 1}", 8, "key 'x'"},
        {"long key", "{'descrdescrdescrdescrdescrdescrdescrdescr': '<f4'}", 8, "not a dictionary"},
        {"big-endian", NPY("'>f4'", "False", "(2,)"), 8, "big-endian"},
        {"complex", NPY("'<c8'", "False", "(1,)"), 8, "npy type '<c8'"},
        {"objects", NPY("'|O'", "False", "(1,)"), 8, "npy type '|O'"},
        {"text", NPY("'<U2'", "False", "(1,)"), 8, "npy type '<U2'"},
        {"half of a type", NPY("'<f'", "False", "(2,)"), 8, "npy type '<f'"},
        {"float16 written f2", NPY("'f2'", "False", "(4,)"), 8, "npy type 'f2'"},
        {"records", NPY("[('x', '<f4')]", "False", "(2,)"), 8, "descr names no plain type"},
        {"descr number", NPY("4", "False", "(2,)"), 8, "descr names no plain type"},
        {"descr escaped", NPY("'<\\x664'", "False", "(2,)"), 8, "descr names no plain type"},
        {"Fortran order", NPY("'<f4'", "True", "(1, 2)"), 8, "Fortran order"},
        {"order 0", NPY("'<f4'", "0", "(2,)"), 8, "fortran_order is neither"},
        {"order missing", NPY("'<f4'", "", "(2,)"), 8, "fortran_order is neither"},
        {"shape list", NPY("'<f4'", "False", "[2]"), 8, "shape is not a tuple"},
        {"shape number", NPY("'<f4'", "False", "2"), 8, "shape is not a tuple"},
        {"shape without commas", NPY("'<f4'", "False", "(1 2)"), 8, "shape is not a tuple"},
        {"dim negative", NPY("'<f4'", "False", "(-2,)"), 8, "dimension 0"},
        {"dim fraction", NPY("'<f4'", "False", "(2.0,)"), 8, "shape is not a tuple"},
        {"dim name", NPY("'<f4'", "False", "(1, n)"), 8, "dimension 1"},
        {"dim 2^63", NPY("'<f4'", "False", "(9223372036854775808,)"), 8, "dimension 0"},
        {"dim of 40 digits", NPY("'<f4'", "False", "(1111111111111111111111111111111111111111,)"), 8, "dimension 0"},
        {"dims 9", NPY("'<f4'", "False", "(1, 1, 1, 1, 1, 1, 1, 1, 2)"), 8, "more than 8 dimensions"},
        {"shape overflows", NPY("'<f4'", "False", "(4294967296, 4294967296, 2)"), 8, "overflows"},
        {"shape overflows then 0", NPY("'<f4'", "False", "(4294967296, 4294967296, 4, 0)"), 0, "overflows"},
        {"bytes overflow", NPY("'<f4'", "False", "(4611686018427387904,)"), 8, "overflows"},
        {"bytes wrap", NPY("'<f8'", "False", "(2305843009213693953,)"), 8, "overflows"},
        {"data cut short", NPY("'<f4'", "False", "(2,)"), 7, "cut short"},
        {"data missing", NPY("'<f4'", "False", "(2,)"), 0, "cut short"},
        {"data left over", NPY("'<f4'", "False", "(2,)"), 9, "several arrays"},
        {"scalar cut short", NPY("'<f4'", "False", "()"), 3, "cut short"},
    };
    bytes b = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int version = 1; version <= (i % 8 == 0 ? 3 : 1); version++) { /* some in every version */
            char name[64];
            snprintf(name, sizeof name, "v%d %s", version, cases[i].name);
            put_npy(&b, version, cases[i].dictionary, cases[i].data);
            give(s, "npy", name, false, &b, cases[i].says);
        }
    static const struct {
        const char *name;
        size_t at, n;
        uint64_t value;
        const char *says;
    } patches[] = {
        {"version 0", 6, 1, 0, "npy version 0.0"},
        {"version 4", 6, 1, 4, "npy version 4.0"},
        {"version 1.1", 7, 1, 1, "npy version 1.1"},
        {"length max", 8, 2, 65535, "npy header says"},
        {"length 0", 8, 2, 0, "not a dictionary"},
        {"length one more", 8, 2, 61, ""},
        {"length short", 8, 2, 20, "npy header"},
        {"as version 2", 6, 1, 2, "npy header says"},
    };
    for (size_t i = 0; i < sizeof patches / sizeof *patches; i++) {
        put_npy(&b, 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }  \n", 8);
        b.data[b.size - 8] = 'x'; /* not a space: a header one byte longer is seen */
        set_number(b.data + patches[i].at, patches[i].value, patches[i].n);
        give(s, "npy", patches[i].name, false, &b, patches[i].says);
    }
    put_npy(&b, 2, NPY("'<f4'", "False", "(2,)"), 8);
    set_number(b.data + 8, UINT32_MAX, 4);
    give(s, "npy", "v2 length max", false, &b, "npy header says");
    free(b.data);
}

/* ---------------------------------------------------------------- latents */

#define LATENT(name, dtype, shape, bytes)                                                                              \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[0," bytes "]}"
#define GOOD_LATENT LATENT("latent_tensor", "F32", "[1,16,1,1,2]", "128")
#define META(pair) "{\"__metadata__\":{" pair "}," GOOD_LATENT "}"

static void bad_latents(sink *s) {
    static const struct {
        const char *name, *json;
        size_t data;
        const char *says;
    } cases[] = {
        {"no tensor", "{}", 0, "none of its 0 tensors"},
        {"4 channels", "{" LATENT("latent_tensor", "F32", "[1,4,1,2]", "32") "}", 32,
            "tensor latent_tensor is [1, 4, 1, 2]"},
        {"16 nowhere", "{" LATENT("z", "F32", "[1,2,3,4,5]", "480") "}", 480, "tensor z is [1, 2, 3, 4, 5]"},
        {"2 dimensions", "{" LATENT("latent_tensor", "F32", "[16,16]", "1024") "}", 1024,
            "tensor latent_tensor is [16, 16]"},
        {"1 dimension", "{" LATENT("latent_tensor", "F32", "[16]", "64") "}", 64, "tensor latent_tensor is [16]"},
        {"scalar", "{" LATENT("latent_tensor", "F32", "[]", "4") "}", 4, "tensor latent_tensor is []"},
        {"6 dimensions", "{" LATENT("latent_tensor", "F32", "[1,1,16,1,1,2]", "128") "}", 128,
            "tensor latent_tensor is [1, 1, 16, 1, 1, 2]"},
        {"integers", "{" LATENT("latent_tensor", "I32", "[1,16,1,1,2]", "128") "}", 128, "type I32"},
        {"bytes", "{" LATENT("x", "U8", "[1,16,1,1,2]", "32") "}", 32, "type U8"},
        {"no frame", "{" LATENT("latent_tensor", "F32", "[1,16,0,1,2]", "0") "}", 0, "nothing in it"},
        {"no video", "{" LATENT("latent_tensor", "F32", "[0,16,1,1,2]", "0") "}", 0, "nothing in it"},
        {"no row", "{" LATENT("latent_tensor", "F32", "[1,16,1,0,2]", "0") "}", 0, "nothing in it"},
        {"no column", "{" LATENT("latent_tensor", "F32", "[1,1,2,0,16]", "0") "}", 0, "nothing in it"},
        {"no channel", "{" LATENT("latent_tensor", "F32", "[1,0,2,2]", "0") "}", 0, "nothing in it"},
        {"a model", "{" LATENT("decoder.conv_in.weight", "F32", "[2,16,1,1,1]", "128") "}", 128, "not a latent"},
        {"a model of two",
            "{" LATENT("decoder.conv_in.weight", "F32", "[2,16,1,1,1]",
                "128") ",\"decoder.conv_in.bias\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[128,136]}}",
            136, "weights of a model"},
        {"two that fit",
            "{" LATENT("x", "F32", "[1,16,1,1,2]",
                "128") ",\"y\":{\"dtype\":\"F32\",\"shape\":[1,16,1,1,2],\"data_offsets\":[128,256]}}",
            256, "2 of its tensors"},
        {"scale word", META("\"tessera.scale\":\"model\""), 128, "tessera.scale \"model\""},
        {"scale empty", META("\"tessera.scale\":\"\""), 128, "tessera.scale \"\""},
        {"scale 0", META("\"tessera.scale\":\"0\""), 128, "tessera.scale \"0\""},
        {"scale negative", META("\"tessera.scale\":\"-0.9152\""), 128, "tessera.scale"},
        {"scale nan", META("\"tessera.scale\":\"nan\""), 128, "tessera.scale"},
        {"scale infinite", META("\"tessera.scale\":\"1e999\""), 128, "tessera.scale"},
        {"scale and more", META("\"tessera.scale\":\"0.9152 x\""), 128, "tessera.scale"},
        {"crop word", META("\"tessera.crop_width\":\"wide\""), 128, "tessera.crop_width \"wide\""},
        {"crop 0", META("\"tessera.crop_height\":\"0\""), 128, "tessera.crop_height \"0\""},
        {"crop negative", META("\"tessera.crop_frames\":\"-1\""), 128, "tessera.crop_frames \"-1\""},
        {"crop huge", META("\"tessera.crop_width\":\"99999999999\""), 128, "tessera.crop_width"},
        {"crop fraction", META("\"tessera.crop_width\":\"1.5\""), 128, "tessera.crop_width"},
    };
    bytes b = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_safetensors(&b, cases[i].json, strlen(cases[i].json), cases[i].data);
        give(s, "latent", cases[i].name, true, &b, cases[i].says);
    }
    static const struct {
        const char *name;
        uint64_t value;
        const char *says;
    } values[] = {{"nan", 0x7fc00000, "is nan"}, {"inf", 0x7f800000, "is inf"}, {"minus inf", 0xff800000, "is -inf"},
        {"nan with payload", 0xff812345, "nan"}};
    static const char json[] = "{" GOOD_LATENT "}";
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) { /* channel 3, column 1 */
        put_safetensors(&b, json, sizeof json - 1, 128);
        set_number(b.data + 8 + sizeof json - 1 + (3 * 2 + 1) * 4, values[i].value, 4);
        give(s, "latent", values[i].name, true, &b, values[i].says);
    }
    put_npy(&b, 1, NPY("'<f2'", "False", "(2, 16, 3, 1, 1)"), 192);
    set_number(b.data + b.size - 2, 0x7c00, 2); /* the last value of the second video */
    give(s, "latent", "npy inf in the second video", true, &b,
        "video 1, latent frame 2, channel 15, row 0, column 0 is inf");
    put_npy(&b, 1, NPY("'<f4'", "False", "(3, 4, 5)"), 240);
    give(s, "latent", "npy 16 nowhere", true, &b, "tensor (the array) is [3, 4, 5]");
    gguf_file g = {0};
    good_gguf(&g);
    give(s, "latent", "gguf", true, &g.b, "is a GGUF file");
    free(g.b.data);
    free(b.data);
}

/* ---------------------------------------------------------------- other kinds of file */

static void bad_kinds(sink *s) {
    static const struct {
        const char *name, *start;
        size_t n, more;
        const char *says;
    } cases[] = {
        {"empty", "", 0, 0, "is empty"},
        {"one byte", "\x01", 1, 0, "only 1 bytes"},
        {"zeros 8", "", 0, 8, "only 8 bytes"},
        {"zeros 4096", "", 0, 4096, "is no safetensors, GGUF or npy file"},
        {"text", "hello, this is text\n", 20, 0, "is text"},
        {"json", "{\"a\": 1, \"b\": 2}", 16, 0, "is text"},
        {"lfs pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:00\n", 57, 0, "git lfs pull"},
        {"torch zip", "PK\x03\x04\x14\x00\x08\x08", 8, 100, "zip archive"},
        {"torch pickle", "\x80\x02\x8a\x0al\xfc\x9c", 7, 100, "Python pickle"},
        {"pickle 5", "\x80\x05\x95", 3, 100, "Python pickle"},
        {"png", "\x89PNG\r\n\x1a\n", 8, 100, "is no safetensors, GGUF or npy file"},
        {"GGUF alone", "GGUF", 4, 0, "cut short"},
        {"GGML", "lmgg", 4, 60, "is no safetensors"},
        {"NUMPY alone", "\x93NUMPY", 6, 0, "cut short"},
        {"length alone", "\x10\0\0\0\0\0\0\0", 8, 0, "only 8 bytes"},
        {"length and brace", "\x10\0\0\0\0\0\0\0{", 9, 0, "the file has 1"},
        {"length and list", "\x02\0\0\0\0\0\0\0[]", 10, 0, "is no safetensors"},
    };
    bytes b = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put(&b, cases[i].start, cases[i].n);
        put(&b, NULL, cases[i].more);
        give(s, "kind", cases[i].name, false, &b, cases[i].says);
    }
    free(b.data);
}

size_t malformed_each(malformed_fn fn, void *ctx) {
    sink s = {fn, ctx, 0};
    bad_kinds(&s);
    bad_safetensors(&s);
    bad_gguf(&s);
    bad_npy(&s);
    bad_latents(&s);
    return s.count;
}

uint8_t *malformed_seed(malformed_seed_kind kind, size_t *size) {
    static const char latent[] = META("\"tessera.scale\":\"0.5\",\"tessera.crop_width\":\"15\"");
    gguf_file g = {0};
    if (kind == SEED_SAFETENSORS)
        put_safetensors(&g.b, good_json, sizeof good_json - 1, 16);
    else if (kind == SEED_GGUF)
        good_gguf(&g);
    else if (kind == SEED_NPY)
        put_npy(&g.b, 1, NPY("'<f4'", "False", "(16, 2, 1, 3)"), 384);
    else
        put_safetensors(&g.b, latent, sizeof latent - 1, 128);
    *size = g.b.size;
    return g.b.data;
}
