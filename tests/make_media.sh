#!/bin/sh
# Makes tests/data/media with ffmpeg (5.1 made those that are committed): make_media.sh OUTDIR
#
# The picture: eight flat patches side by side, moved on by one each frame; the lowest quarter is gray.
set -eu
out=$1
mkdir -p "$out"
raw=$(mktemp)
trap 'rm -f "$raw"' EXIT

patches() { # WIDTH HEIGHT FRAMES
    python3 - "$@" >"$raw" <<'PY'
import sys
w, h, n = map(int, sys.argv[1:])
colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (128, 128, 128), (200, 60, 30), (30, 90, 180)]
for f in range(n):
    for y in range(h):
        for x in range(w):
            sys.stdout.buffer.write(bytes(colours[(x * 8 // w + f) % 8] if 4 * y < 3 * h else (128, 128, 128)))
PY
}

make() { # SIZE NAME OPTION...
    size=$1 name=$2
    shift 2
    ffmpeg -y -v error -f rawvideo -pix_fmt rgb24 -s "$size" -r 25 -i "$raw" "$@" -bitexact "$out/$name"
}

to709="scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int+full_chroma_inp"
to601full="scale=out_color_matrix=bt601:out_range=pc:flags=accurate_rnd+full_chroma_int+full_chroma_inp"
to601="scale=out_color_matrix=bt601:out_range=tv:flags=accurate_rnd+full_chroma_int+full_chroma_inp"
tag709="-colorspace bt709 -color_primaries bt709 -color_trc bt709 -color_range tv"
x264="-c:v libx264 -qp 1 -preset veryfast"

patches 64 48 5
make 64x48 h264.mp4 -vf "$to709,format=yuv420p" $tag709 $x264
make 64x48 bt601_full.mkv -vf "$to601full,format=yuv420p" -colorspace smpte170m -color_range pc $x264
make 64x48 untagged.mp4 -vf "$to601,format=yuv420p" $x264
make 64x48 ten_bits.mp4 -vf "$to709,format=yuv420p10le" $tag709 $x264
make 64x48 yuv444.mp4 -vf "$to709,format=yuv444p" $tag709 $x264
make 64x48 yuv422_prores.mov -vf "$to601,format=yuv422p10le" -c:v prores_ks -profile:v 3
make 64x48 rgb.mkv -c:v libx264rgb -qp 0 -preset veryfast
make 64x48 gray.mkv -vf format=gray -c:v ffv1
make 64x48 alpha.mov -vf format=argb -c:v qtrle
make 64x48 vfr.mkv -vf "setpts='(N+N*N)/25/TB',$to709,format=yuv420p" -vsync vfr $tag709 $x264
make 64x48 animation.gif -vf 'split[a][b];[a]palettegen=reserve_transparent=0[p];[b][p]paletteuse=dither=none'
make 64x48 picture.jpg -frames:v 1 -vf "$to601full,format=yuvj420p" -q:v 2
make 64x48 bframes.mkv -vf "$to709,format=yuv420p" $tag709 $x264 -bf 3
for turn in 90 180 270; do
    ffmpeg -y -v error -i "$out/h264.mp4" -c copy -metadata:s:v rotate=$turn -bitexact "$out/turned_$turn.mp4"
done
ffmpeg -y -v error -i "$out/h264.mp4" -f lavfi -i "sine=440:duration=0.2:sample_rate=16000" -map 0:v -map 1:a \
    -c:v copy -c:a aac -b:a 24k -bitexact "$out/sound.mp4"
for f in rgba rgb48be gray ya16be gray16be; do
    make 64x48 $f.png -frames:v 1 -pix_fmt $f
done
make 64x48 pal8.png -frames:v 1 -vf 'split[a][b];[a]palettegen=reserve_transparent=0[p];[b][p]paletteuse=dither=none'
patches 33 25 3
make 33x25 odd.webm -vf "$to709,format=yuv420p" $tag709 -c:v libvpx-vp9 -lossless 1
make 33x25 odd444.mp4 -vf "$to709,format=yuv444p" $tag709 $x264
