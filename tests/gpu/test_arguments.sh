#!/bin/sh
# Programs of the GPU bundle refuse what they do not know: status 2 and one line, before anything else is done.
#   test_arguments.sh GPU_CHECK [GPU_KERNELS]
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
gpu_check=$1 gpu_kernels=${2:-} failed=0

# refused WORD COMMAND...: the line says WORD
refused() {
    word=$1
    shift
    said=$("$@" 2>&1 </dev/null)
    status=$?
    [ $status -eq 2 ] && [ "$(printf '%s\n' "$said" | wc -l)" -eq 1 ] && printf %s "$said" | grep -qF -- "$word" && return
    echo "status $status of $*: $said"
    failed=1
}

refused fp61 "$gpu_check" decode fp61 1280 720 5
refused f32 "$gpu_check" decode f32 1280 720 5
refused int8, "$gpu_check" decode int8, 1280 720 5
for small in '' --small; do
    refused "width '0'" "$gpu_check" $small decode auto 0 720 5
    refused "width '1281'" "$gpu_check" $small ops 1281 720
    refused "height '720p'" "$gpu_check" $small ops 1280 720p
    refused "latents '5.5'" "$gpu_check" $small decode auto 1280 720 5.5
    refused "GiB 'much'" "$gpu_check" $small decode auto 1280 720 5 much
    refused "GiB '-1'" "$gpu_check" $small decode auto 1280 720 5 -1
    refused "'small_decode_t9'" "$gpu_check" $small goldens auto small_decode_t9
    refused "'fp61'" "$gpu_check" $small goldens fp61
    refused usage: "$gpu_check" $small goldens
    refused usage: "$gpu_check" $small full
    refused usage: "$gpu_check" $small decode auto 1280 720
    refused usage: "$gpu_check" $small ops 1280 720 5
    refused usage: "$gpu_check" $small device 1
    refused usage: "$gpu_check" $small
done
refused usage: "$gpu_check" decoed auto 1280 720 5
if [ -n "$gpu_kernels" ]; then
    refused "'--smal'" "$gpu_kernels" --smal
    refused "'1'" "$gpu_kernels" --small 1
fi
refused "'--smal'" "$here/check" --smal
refused "'--small 1'" "$here/check" --small 1
refused "'--small'" python3 "$here/speed.py" --small
refused WIDTH python3 "$here/pytorch.py" 1280 720
refused WIDTH python3 "$here/pytorch.py" 1280 720 5 gpu
refused WIDTH python3 "$here/pytorch.py" 1280 721 5
refused WIDTH python3 "$here/pytorch.py" 1280 720 5.5
exit $failed
