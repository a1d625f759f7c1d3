/* tessera view, where its libraries were missing. */
#include "cli.h"

int cmd_view(const options *o) {
    (void)o;
    return failure(TSR_ERR_UNSUPPORTED,
        "no window: this build was made without GLFW or Dear ImGui; use tessera render, or build with them");
}
