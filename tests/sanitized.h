/* Sanitizers make plain arithmetic ten times as slow. Cases that only compare numbers, on ways through the code that
 * smaller cases take too, run as shipped alone; counts of random cases are cut. */
#ifndef TSR_TESTS_SANITIZED_H
#define TSR_TESTS_SANITIZED_H

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

/* First in a test. */
#define only_as_shipped()                                                                                              \
    do {                                                                                                               \
        if (SANITIZED)                                                                                                 \
            cr_skip_test("numbers only, not under a sanitizer");                                                       \
    } while (0)

#endif
