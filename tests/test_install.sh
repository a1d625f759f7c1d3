#!/bin/sh
# The installed library is enough to build and run docs/example.c, and the installed program to run.
#   test_install.sh ROOT BUILD MESON CC
set -eu
root=$1 build=$2 meson=$3 cc=$4
there=$(mktemp -d)
trap 'rm -rf "$there"' EXIT
$meson install -C "$build" --no-rebuild --quiet --destdir "$there" >"$there/log" 2>&1 || { cat "$there/log"; exit 1; }

pc=$(find "$there" -name tessera.pc)
export PKG_CONFIG_PATH="${pc%/*}" PKG_CONFIG_SYSROOT_DIR="$there"
lib=$(dirname "$(find "$there" -name 'libtessera.so')")
cd "$there"
# shellcheck disable=SC2046
$cc -std=c11 -Wall -Wextra -Werror "$root/docs/example.c" $(pkg-config --cflags --libs tessera) -o example
LD_LIBRARY_PATH="$lib" ./example "$root/assets/demo-vae.safetensors" "$root/assets/spheres.latent" 1
bytes=$(wc -c <frame-0.ppm)
[ "$bytes" -eq $((448 * 256 * 3 + 15)) ] || { echo "frame-0.ppm has $bytes bytes"; exit 1; }
bytes=$(gzip -c frame-0.ppm | wc -c)
[ "$bytes" -gt 20000 ] || { echo "frame-0.ppm is a flat picture: $bytes bytes when packed"; exit 1; }
[ ! -e frame-1.ppm ] || { echo "more frames than asked for"; exit 1; }
LD_LIBRARY_PATH="$lib" ./example /nowhere "$root/assets/spheres.latent" 2>error && { echo "no such model, but status 0"; exit 1; }
grep -q /nowhere error || { echo "the error does not name the file:"; cat error; exit 1; }
# Only our names leave the library.
others=$(nm -D --defined-only "$lib/libtessera.so" | awk '$2 ~ /[TDBR]/ && $3 !~ /^tsr_/ { print $3 }')
[ -z "$others" ] || { echo "exported without tsr_: $others"; exit 1; }
# The installed program finds its library and the demo model by itself; its page and completions are there.
program=$(find "$there" -path '*/bin/tessera')
(unset LD_LIBRARY_PATH TESSERA_MODEL && "$program" plan 64x64x5 >plan 2>said) || { cat said; exit 1; }
grep -q "share/tessera/demo-vae.safetensors (the demo model" said || { echo "which model? it says:"; cat said; exit 1; }
grep -q 64x64 plan || { cat plan; exit 1; }
for file in man/man1/tessera.1 bash-completion/completions/tessera zsh/site-functions/_tessera; do
    [ -s "$(dirname "$(dirname "$program")")/share/$file" ] || { echo "not installed: share/$file"; exit 1; }
done
