/* Preloaded into the program: its allocation number TSR_FAIL_ALLOC (from 0) of whole pages, which are what plans are
 * made of, finds no memory. */
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

enum { PAGE = 4096 };

void *aligned_alloc(size_t alignment, size_t bytes) {
    static atomic_int seen;
    const char *at = getenv("TSR_FAIL_ALLOC");
    void *p = NULL;
    if (alignment == PAGE && at && atomic_fetch_add(&seen, 1) == atoi(at))
        errno = ENOMEM;
    else if ((errno = posix_memalign(&p, alignment, bytes)) != 0)
        p = NULL;
    return p;
}
