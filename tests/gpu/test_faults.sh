#!/bin/sh
# Kernels that fault take none along: every case is counted, and the status says that not all agree.
#   test_faults.sh GPU_KERNELS
all=$("$1" --small) && some=$(FAKE_CUDA_FAULT_LAUNCH=6 "$1" --small) && echo "a fault is none: $some" && exit 1
count() { printf '%s\n' "$1" | sed -n "s/.* \([0-9]*\) $2.*/\1/p"; }
sum() { echo $(($(count "$1" agree,) + $(count "$1" 'do not') + $(count "$1" 'left out') + $(count "$1" after))); }
[ "$(sum "$all")" -eq "$(sum "$some")" ] && [ "$(count "$some" 'do not')" -gt 1 ] && [ "$(count "$some" agree,)" -gt 1 ] &&
    exit
printf '%s\n' "$all" "$some"
exit 1
