/* Statistics, norm, attention and moves through the host shim. */
#include "cases.h"

#include <criterion/criterion.h>

RUN_CASES(norm, every_type_and_width)
RUN_CASES(norm, codes_of_two_planes)
RUN_CASES(norm, without_silu_and_without_norm)
RUN_CASES(norm, one_pixel)
RUN_CASES(range, never_shrinks_and_tells_what_is_not_finite)
RUN_CASES(range, cached_codes_follow_it)
RUN_CASES(attention, wide_and_narrow_heads)
RUN_CASES(attention, sharp_softmax)
RUN_CASES(moves, in_and_out)
