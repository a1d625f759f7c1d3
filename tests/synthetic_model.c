/* Writes a small synthetic VAE, ready in a fraction of the demo's time: synthetic_model OUT.safetensors */
#include "synthetic.h"

#include <stdio.h>

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s OUT.safetensors\n", argv[0]);
        return 2;
    }
    synth_config c = {.channels = {32, 32, 32, 32}, .layers = 1, .seed = 1};
    if (synth_model_write(argv[1], &c) == TSR_OK)
        return 0;
    fprintf(stderr, "%s: %s\n", argv[0], tsr_last_error());
    return 1;
}
