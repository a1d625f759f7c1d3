#!/bin/sh
# The Windows half of sharing memory and semaphores between CUDA and Vulkan, checked by the MinGW compiler as far as
# syntax and types go: no Windows is here to run it. Usage: test_win32.sh SOURCE_ROOT BUILD_ROOT [FOLDER_OF_CUDA_H]
set -eu
cc=$(command -v x86_64-w64-mingw32-gcc) || { echo "no x86_64-w64-mingw32-gcc; install gcc-mingw-w64-x86-64"; exit 77; }
headers=$(mktemp -d)
trap 'rm -rf "$headers"' EXIT
for h in vulkan vk_video volk.h; do # not all of /usr/include, which is the C library of another system
    ln -s "/usr/include/$h" "$headers/$h"
done
cd "$1/engine"
for f in vulkan/*.c; do
    "$cc" -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -Wno-missing-field-initializers -Wno-format -fsyntax-only \
        -I. -Iinclude -I"$2/shaders" -isystem "$headers" "$f"
done
[ $# -lt 3 ] && exit 0
ln -s "$3/cuda.h" "$headers/cuda.h"
for f in share slab memory; do
    "$cc" -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -Wno-missing-field-initializers -Wno-format -fsyntax-only \
        -I. -Iinclude -isystem "$headers" "backend/cuda/$f.c"
done
