/* The device that the checks of single kernels run on, in place of the shim. */
#ifndef TSR_TESTS_GPU_DEVICE_H
#define TSR_TESTS_GPU_DEVICE_H

#include "../cuda/cases.h"

tsr_status device_open(std::string *name); /* or why not */
void device_close();
bool device_lost(); /* a kernel faulted: nothing runs any more in this process */
bool device_hopper();
bool device_has(const one_case &c); /* the GPU has the instructions of its kernel */

#endif
