/* Random cases that are the same on every machine: a test's process begins the sequence anew. */
#ifndef TSR_TESTS_RANDOM_H
#define TSR_TESTS_RANDOM_H

#include <stdint.h>

/* 0 .. n-1 */
static inline int below(int n) {
    static uint64_t seed = 1;
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (int)((seed >> 33) % (uint64_t)n);
}

#endif
