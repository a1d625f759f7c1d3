/*
 * A stand-in for Criterion in thread-sanitizer builds. Criterion's sandbox maps memory where the
 * sanitizer keeps its shadow and aborts ("Could not initialize inheritable arena", Snaipe/Criterion
 * issue 274). This runs every test in a process of its own and prints TAP; it knows as much of
 * Criterion as the tests with threads use.
 */
#ifndef TSR_TESTS_TSAN_CRITERION_H
#define TSR_TESTS_TSAN_CRITERION_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PLAIN_MOST = 256, PLAIN_SKIP = 77 };
static struct plain_test {
    const char *suite, *name;
    void (*run)(void);
} plain_tests[PLAIN_MOST];
static int plain_count;

#define Test(test_suite, test_name, ...)                                                                               \
    static void test_suite##_##test_name(void);                                                                        \
    __attribute__((constructor)) static void test_suite##_##test_name##_register(void) {                               \
        if (plain_count == PLAIN_MOST)                                                                                 \
            abort();                                                                                                   \
        plain_tests[plain_count++] = (struct plain_test){#test_suite, #test_name, test_suite##_##test_name};           \
    }                                                                                                                  \
    static void test_suite##_##test_name(void)

/* The message is optional; with the space before it there is a format in any case. */
#define PLAIN_FAIL(what, ...)                                                                                          \
    do {                                                                                                               \
        fprintf(stderr, "%s:%d: %s", __FILE__, __LINE__, what);                                                        \
        fprintf(stderr, " " __VA_ARGS__);                                                                              \
        fputc('\n', stderr);                                                                                           \
        exit(1);                                                                                                       \
    } while (0)
#define cr_assert(condition, ...)                                                                                      \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            PLAIN_FAIL(#condition, __VA_ARGS__);                                                                       \
    } while (0)
#define cr_assert_not(condition, ...) cr_assert(!(condition), __VA_ARGS__)
#define cr_assert_eq(a, b, ...) cr_assert((a) == (b), __VA_ARGS__)
#define cr_assert_neq(a, b, ...) cr_assert((a) != (b), __VA_ARGS__)
#define cr_assert_lt(a, b, ...) cr_assert((a) < (b), __VA_ARGS__)
#define cr_assert_leq(a, b, ...) cr_assert((a) <= (b), __VA_ARGS__)
#define cr_assert_gt(a, b, ...) cr_assert((a) > (b), __VA_ARGS__)
#define cr_assert_geq(a, b, ...) cr_assert((a) >= (b), __VA_ARGS__)
#define cr_assert_null(a, ...) cr_assert((a) == NULL, __VA_ARGS__)
#define cr_assert_not_null(a, ...) cr_assert((a) != NULL, __VA_ARGS__)
#define cr_assert_float_eq(a, b, tolerance, ...)                                                                       \
    cr_assert(!(((a) - (b) < 0 ? (b) - (a) : (a) - (b)) > (tolerance)), __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...)                                                                                    \
    do {                                                                                                               \
        const char *plain_a = (a), *plain_b = (b);                                                                     \
        if (strcmp(plain_a, plain_b) != 0) {                                                                           \
            fprintf(stderr, "\"%s\" is not \"%s\"\n", plain_a, plain_b);                                               \
            PLAIN_FAIL(#a " == " #b, __VA_ARGS__);                                                                     \
        }                                                                                                              \
    } while (0)
#define cr_assert_arr_eq(a, b, bytes, ...) cr_assert(memcmp(a, b, bytes) == 0, __VA_ARGS__)
#define cr_assert_fail(...) PLAIN_FAIL("failed:", __VA_ARGS__)
#define cr_skip_test(...)                                                                                              \
    do {                                                                                                               \
        fprintf(stderr, " " __VA_ARGS__);                                                                              \
        exit(PLAIN_SKIP);                                                                                              \
    } while (0)

int main(void) {
    int failed = 0;
    printf("1..%d\n", plain_count);
    for (int i = 0; i < plain_count; i++) {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            plain_tests[i].run();
            exit(0); /* the sanitizer's report is in the status */
        }
        int status = -1;
        if (child < 0 || waitpid(child, &status, 0) != child)
            status = -1;
        bool skipped = WIFEXITED(status) && WEXITSTATUS(status) == PLAIN_SKIP, ok = status == 0 || skipped;
        printf(
            "%sok - %s::%s%s\n", ok ? "" : "not ", plain_tests[i].suite, plain_tests[i].name, skipped ? " # SKIP" : "");
        failed += !ok;
    }
    return failed > 0;
}

#endif
