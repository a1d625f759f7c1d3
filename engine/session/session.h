/* The pump: plan -> backend -> slots -> Vulkan -> callback. Behind tsr_engine_*, tsr_plan_* and tsr_decode of the
 * public header. */
#ifndef TSR_SESSION_H
#define TSR_SESSION_H

#include "backend/backend.h"
#include "formats/latent_file.h"
#include "vulkan/vk.h"

struct tsr_engine {
    tsr_engine_params params;
    tsr_backend *backend;
    tsr_vk *vk;          /* made at the first decode or report */
    atomic_bool cancel;
};

#endif
