/* A libcuda.so.1 without a GPU: what tests ask of it beside the driver's own functions. Found with dlsym. */
#ifndef TSR_TESTS_FAKE_CUDA_H
#define TSR_TESTS_FAKE_CUDA_H

#include <stddef.h>
#include <stdint.h>

typedef struct fake_cuda_config {
    int version;            /* 13000 */
    int devices;
    int major, minor;       /* compute capability */
    int exports;            /* memory can be exported as file descriptors */
    size_t memory;          /* bytes of the device */
} fake_cuda_config;

typedef struct fake_cuda_counts {
    int calls;    /* of driver functions that can fail */
    int failures; /* that were asked for and that nobody may overlook */
    int live;     /* objects, mappings and allocations that exist */
    int launches; /* of kernels, in graphs or not */
    int graphs;   /* launched */
    int built;    /* graphs made ready */
    int updates;  /* of a graph's nodes */
    size_t memory; /* bytes of the device that are taken */
} fake_cuda_counts;

/* Sets what the device is; nothing may be alive. */
typedef void (*fake_cuda_setup_fn)(const fake_cuda_config *config);
/* The n-th call from now fails (0: the next; -1: none). Calls that free do free. */
typedef void (*fake_cuda_fail_at_fn)(int n);
/* From now on taking memory or making objects is wrong. */
typedef void (*fake_cuda_settled_fn)(int settled);
typedef void (*fake_cuda_count_fn)(fake_cuda_counts *out);
/* What the backend did wrong first: "" is nothing. A wrong call fails as well. */
typedef const char *(*fake_cuda_wrong_fn)(void);

#endif
