#ifndef TSR_TESTS_CUDA_CASES_H
#define TSR_TESTS_CUDA_CASES_H

#include "checks.h"

#include <cstdlib>
#include <functional>

struct one_case {
    std::string name;
    std::function<std::string()> check; /* "" or what is wrong */
    tsr_conv_shape shape;               /* TSR_CONV_SHAPE_COUNT: no conv */
    tsr_dtype type;                     /* a conv's input, a norm's output: what the GPU must have */
    bool quick;                         /* each path once, and no longer than that takes */
};
typedef std::vector<one_case> cases;

/* A shape and its input; the output is what the precision keeps its residual stream in. */
conv_case conv_base(tsr_conv_shape shape, tsr_dtype in);
void add(cases &all, const conv_case &c, bool quick = true);
void add(cases &all, const norm_case &c, bool quick = true);
void add(cases &all, const attention_case &c, bool quick = true);
cases cases_of(const std::string &group); /* "": all */

/* For the tests: criterion is included. With TSR_TEST_LONG set those that are not quick. */
#define RUN_CASES(suite, group)                                                                                        \
    Test(suite, group) {                                                                                               \
        for (const one_case &c : cases_of(#group)) {                                                                   \
            if (c.quick == (std::getenv("TSR_TEST_LONG") != nullptr))                                                  \
                continue;                                                                                              \
            std::string wrong = c.check();                                                                             \
            cr_assert(wrong.empty(), "%s: %s", c.name.c_str(), wrong.c_str());                                         \
        }                                                                                                              \
    }

#endif
