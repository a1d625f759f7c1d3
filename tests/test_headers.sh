#!/bin/sh
# Every header compiles alone: the public ones as C11 and as C++, ours as C11.
#   test_headers.sh ROOT CC [CXX]
set -eu
root=$1 cc=$2 cxx=${3:-}
cd "$root/engine/include"
for h in tessera/*.h; do
    echo "#include <$h>" | $cc -std=c11 -Wall -Wextra -Wpedantic -Wstrict-prototypes -Werror -I. -fsyntax-only -x c -
    [ -z "$cxx" ] || echo "#include <$h>" | $cxx -std=c++17 -Wall -Wextra -Wpedantic -Werror -I. -fsyntax-only -x c++ -
done
cd ..
for h in */*.h */*/*.h; do
    case $h in include/*) continue ;; esac
    echo "#include \"$h\"" |
        $cc -std=c11 -D_GNU_SOURCE -Wall -Wextra -Wstrict-prototypes -Werror -I. -Iinclude -fsyntax-only -x c -
done
