/* All kernels, compiled for the CPU, by name: what tests and the fake driver launch. */
#ifndef TSR_SHIM_KERNELS_H
#define TSR_SHIM_KERNELS_H

#include "shim.h"

namespace shim {

struct named_kernel {
    const char *name; /* its symbol: "tsr_conv_f16_K33" */
    kernel_fn fn;
    size_t args_bytes; /* of its parameter struct */
};

const std::vector<named_kernel> &kernels();
const named_kernel *find_kernel(const std::string &name); /* NULL where there is none */

} // namespace shim

#endif
