/* A libcuda.so.1 without a GPU: what tests ask of it beside the driver's own functions. Found with dlsym. */
#ifndef TSR_TESTS_FAKE_CUDA_H
#define TSR_TESTS_FAKE_CUDA_H

#include <stddef.h>
#include <stdint.h>

typedef struct fake_cuda_config {
    int version; /* 13000 */
    int devices;
    int major, minor;    /* compute capability */
    int exports;         /* memory can be exported as file descriptors */
    size_t memory;       /* bytes of the device */
    const uint8_t *uuid; /* [16], NULL: one of its own */
    /* Of the file behind memory that the Vulkan driver exports (Mesa's software driver): its own mark [16], which
     * makes it take the fake's exports as well, and makes the fake take its. NULL: files are bare memory. */
    const uint8_t *mark;
    int other_memory; /* what is exported is not the memory, as where an import is not real */
    int no_imports;   /* importing memory fails */
    int drop_signals; /* signals of timelines get lost */
    int eager_copies; /* copies run when they are queued; else as late as they may */
    int fault_launch; /* the n-th kernel from now faults; 0: none */
    int patience;     /* milliseconds that a timeline is waited for; 0: a minute */
    size_t others;    /* bytes of the memory that other programs have */
    int pin_ms;       /* milliseconds that pinning memory takes, in which nobody is told how much is free */
    size_t pages;     /* what memory comes in multiples of; 0: 2 MiB */
} fake_cuda_config;

/* Timelines of another API behind file descriptors, which the fake signals and waits for. Signals and waits make the
 * fake's streams run by themselves, as a device's do. */
typedef struct fake_cuda_timelines {
    void *(*open)(int fd); /* NULL: not one. The fd stays the caller's */
    void (*signal)(void *timeline, uint64_t value);
    uint64_t (*value)(void *timeline);
} fake_cuda_timelines;

typedef struct fake_cuda_counts {
    int calls;            /* of driver functions that can fail */
    int failures;         /* that were asked for and that nobody may overlook */
    int live;             /* objects, mappings and allocations that exist */
    int launches;         /* of kernels, in graphs or not */
    int graphs;           /* launched */
    int built;            /* graphs made ready */
    int updates;          /* of a graph's nodes */
    size_t memory;        /* bytes of the device that are taken */
    int waits;            /* of the host for the device */
    int spins;            /* for events, which keep a core busy */
    int signals, awaited; /* of timelines, done */
    int pinning, stalled; /* memory is being pinned now; who asked for the free memory meanwhile, and had to wait */
} fake_cuda_counts;

/* Sets what the device is; nothing may be alive. */
typedef void (*fake_cuda_setup_fn)(const fake_cuda_config *config);
typedef void (*fake_cuda_timelines_fn)(const fake_cuda_timelines *t);
/* The same device, which now does this; things may be alive. */
typedef void (*fake_cuda_reconfigure_fn)(const fake_cuda_config *config);
/* The n-th call from now fails (0: the next; -1: none). Calls that free do free. */
typedef void (*fake_cuda_fail_at_fn)(int n);
/* From now on taking memory or making objects is wrong. */
typedef void (*fake_cuda_settled_fn)(int settled);
typedef void (*fake_cuda_count_fn)(fake_cuda_counts *out);
/* For the fake cuBLAS: something that takes as long as so many blocks and touches these pieces of memory; 0: it may. */
typedef int (*fake_cuda_product_fn)(void *stream, uint64_t blocks, const void *const at[4], const size_t bytes[4]);
/* What the backend did wrong first: "" is nothing. A wrong call fails as well. */
typedef const char *(*fake_cuda_wrong_fn)(void);

#endif
