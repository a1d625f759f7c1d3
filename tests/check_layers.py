#!/usr/bin/env python3
"""The house is as drawn: core < formats < model < plan < backend, vulkan < session < viewer.

Reads the #include lines of every source file and fails on an arrow that points up. model and plan name no
backend, a backend never names Vulkan, Vulkan never names a backend, the viewer sees the public headers only.

    check_layers.py ROOT        check the tree at ROOT
    check_layers.py --self-test check that each kind of trespass is caught
"""
import os
import re
import sys
import tempfile

BELOW = {"core": []}
BELOW["formats"] = ["core"]
BELOW["model"] = ["core", "formats"]
BELOW["plan"] = ["core", "formats", "model"]
BELOW["backend"] = ["core", "formats", "model", "plan"]
BELOW["vulkan"] = ["core", "formats", "model", "plan"]
BELOW["session"] = ["core", "formats", "model", "plan", "backend", "vulkan"]
BELOW["media"] = ["core", "formats"]
BELOW["cuda"] = BELOW["backend"] + ["backend"]
BELOW["viewer"] = []  # <tessera/*.h> only

BACKEND_NAMES = r"\b(?:tsr_)?(?:cpu|cuda|cu[A-Z]\w+|onednn|dnnl)\w*"
VULKAN_NAMES = r"\b(?:tsr_vk\w*|vk[A-Z]\w+|Vk[A-Z]\w+|VK_\w+|volk\w*)"
NEVER_NAMES = {
    "model": f"{BACKEND_NAMES}|{VULKAN_NAMES}",
    "plan": f"{BACKEND_NAMES}|{VULKAN_NAMES}",
    "backend": VULKAN_NAMES,
    "cuda": VULKAN_NAMES,
    "vulkan": r"\btsr_(?:backend|exec|cpu|cuda)\w*",
}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)
NOT_CODE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', re.S)
SOURCES = (".c", ".h", ".cpp", ".hpp", ".cu", ".cuh")


def floor_of(path):
    parts = path.split(os.sep)
    if parts[0] == "engine":
        return parts[1] if parts[1] in BELOW else None
    return parts[0] if parts[0] in ("cuda", "viewer") else None


def trespasses(root):
    for top in ("engine", "cuda", "viewer"):
        for folder, _, names in os.walk(os.path.join(root, top)):
            for name in sorted(names):
                path = os.path.relpath(os.path.join(folder, name), root)
                floor = floor_of(path)
                if name.endswith(SOURCES) and floor:
                    with open(os.path.join(root, path), encoding="utf-8") as f:
                        yield from (f"{path}: {t}" for t in of_file(floor, f.read()))


def of_file(floor, text):
    for quote, header in INCLUDE.findall(text):
        if ".." in header.split("/"):
            yield f"includes {header}: name the floor instead"
        target = header.split("/")[0] if "/" in header else None
        if quote == '"' and target in BELOW and target != floor and target not in BELOW[floor]:
            yield f"includes {header}: {floor} stands below {target}"
        if floor == "viewer" and target in BELOW and target != "viewer":
            yield f"includes {header}: the viewer sees <tessera/*.h> only"
    if floor in NEVER_NAMES:
        code = NOT_CODE.sub(" ", text)
        for name in sorted(set(re.findall(NEVER_NAMES[floor], code))):
            yield f"names {name}: {floor} must not know it"


def self_test():
    bad = [
        ("engine/core/a.c", '#include "formats/tensor_file.h"'),
        ("engine/model/a.c", '#include "plan/plan.h"'),
        ("engine/model/a.c", "int tsr_cuda_x;"),
        ("engine/plan/a.c", "if (cpu) {}"),
        ("engine/backend/cpu/a.c", '#include "vulkan/vk.h"'),
        ("engine/backend/cpu/a.c", "VkBuffer b;"),
        ("engine/vulkan/a.c", '# include "backend/backend.h"'),
        ("engine/vulkan/a.c", "tsr_backend *b;"),
        ("engine/media/a.c", '#include "model/vae.h"'),
        ("engine/session/a.c", '#include "../core/core.h"'),
        ("viewer/a.c", '#include "core/core.h"'),
        ("viewer/a.cpp", '#include <session/session.h>'),
        ("cuda/a.cu", '#include "session/session.h"'),
    ]
    good = [
        ("engine/plan/a.c", '/* a cpu, VkBuffer */ const char *s = "cpu";'),
        ("engine/session/a.c", '#include "vulkan/vk.h"\n#include "backend/backend.h"\n#include "flow.h"'),
        ("viewer/a.c", '#include <tessera/tessera.h>\n#include "options.h"'),
    ]
    for want, cases in ((1, bad), (0, good)):
        for path, text in cases:
            with tempfile.TemporaryDirectory() as root:
                os.makedirs(os.path.join(root, os.path.dirname(path)))
                with open(os.path.join(root, path), "w", encoding="utf-8") as f:
                    f.write(text)
                if bool(list(trespasses(root))) != bool(want):
                    sys.exit(f"self-test: {path}: {text!r} should {'' if want else 'not '}be caught")


if __name__ == "__main__":
    if sys.argv[1] == "--self-test":
        self_test()
    else:
        found = list(trespasses(sys.argv[1]))
        sys.exit("\n".join(found) if found else 0)
