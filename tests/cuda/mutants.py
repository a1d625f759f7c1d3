#!/usr/bin/env python3
"""Mutation test: would the checks notice? Plants faults into the CUDA kernels' source, each in an if of its own, so
that one program holds many and its argument says which is live; compiles that for the CPU with the host shim, and fails
where the checks still pass. With none live they must pass.

    mutants.py ROOT CXX ARCHIVES... [--only NAME...]     ARCHIVES: the emulator and the checks; NAME: only these faults
"""
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile

# name, file, what stands there (once; spaces and line breaks are alike), what stands there instead. Statements, or an
# expression; where @ encloses a part, only that part is replaced.
MUTANTS = [
    ("missing barrier", "conv.h", "@block_sync();@ /* this step's data", ""),
    ("short wait", "conv.h", "cp_wait<S::weight_stages - 2>()", "cp_wait<S::weight_stages - 1>()"),
    ("halo fetched too late", "conv.h", "if (i < S::fetch_steps) conv_load_halo<S, E>(a, b, ahead, halos + next_halo * "
     "S::halo_bytes, i * S::turns_a_step, i + 1 == S::fetch_steps ? S::halo_turns : (i + 1) * S::turns_a_step);",
     "if (i == S::steps - 1) conv_load_halo<S, E>(a, b, ahead, halos + next_halo * S::halo_bytes, 0, S::halo_turns);"),
    ("weights overwritten while read", "conv.h", "streams + next_weights * S::weight_bytes",
     "streams + weight_slot * S::weight_bytes"),
    ("halo overwritten while read", "conv.h", "halos + next_halo * S::halo_bytes", "halo"),
    ("wrong swizzle", "conv.h", "(((lane >> 4) ^ TSR_CONV_SWIZZLE(column, S::chunk)) << 4)", "((lane >> 4) << 4)"),
    ("halo off by one row", "conv_place.h", "b.iy = b.oy * S::stride - (a.pad_top - b.p)",
     "b.iy = b.oy * S::stride - (a.pad_top - b.p) + 1"),
    ("halo off by one column", "conv.h", "b.ix + hx", "b.ix + hx - 1"),
    ("no fill right of the picture", "conv.h", "static_cast<unsigned>(x) < static_cast<unsigned>(a.w)", "x >= 0"),
    ("no fill below the picture", "conv.h", "static_cast<unsigned>(y) < static_cast<unsigned>(a.h)", "y >= 0"),
    ("padding of code 0", "conv.h", "static_cast<uint32_t>(b.zero) * 0x01010101u", "0"),
    ("no zero-point correction", "conv_finish.h", "ldg(a.weight_sum + b.phase * n_padded + n + c) * b.zero", "0"),
    ("cache taken for the first frame", "conv.h", "frame < 0 ? a.past : a.in", "frame <= 0 ? a.past : a.in"),
    ("wrong phase", "conv_place.h", "b.r = b.phase & 1;", "b.r = b.phase >> 1;"),
    ("wrong border class", "conv_finish.h", "ey = @b.p ? y == a.h - 1 : y == 0@", "b.p ? y == 0 : y == a.h - 1"),
    ("columns not by parity", "conv_place.h", "(x & 1) * ((S::halo_w + 1) / 2) + (x >> 1)", "x"),
    ("residual forgotten", "conv_finish.h", "if (@a.accumulate@) { packed = ldg(p);", "false"),
    ("statistics before rounding", "conv_finish.h", "v[c] = unpack16(a.out_type, packed.x[c / 2], 0); v[c + 1] = "
     "unpack16(a.out_type, packed.x[c / 2], 1);", ""),
    ("statistics over live data", "conv_finish.h", "if (a.partial) block_sync();", ""),
    ("statistics' lanes in one bank", "conv_finish.h", "channel ^ (channel >> 3 & 7)", "channel"),
    ("pixels beyond the picture counted", "conv_finish.h", "@x >= a.cols@ ||", "false"),
    ("warpgroup without a fence", "conv.h", "wgmma_fence();", ""),
    ("warpgroup not waited for", "conv.h", "wgmma_wait();", ""),
    ("products of a warpgroup not closed", "conv.h", "wgmma_commit();", ""),
    ("copies not published to the warpgroup", "conv.h", "if constexpr (S::warpgroup) wgmma_publish();", ""),
    ("pixels overwritten in flight", "conv.h", "for (int i = 0; i < S::m_tiles; i++) ldmatrix4(a[k][i], "
     "(halo ^ (k << 5)) + i * row); wgmma_fence(); #pragma unroll for (int i = 0; i < S::m_tiles; i++) "
     "wgmma(E(), acc[i], a[k][i], wgmma_rows(weights + (k << 5), S::chunk));",
     "for (int i = 0; i < S::m_tiles; i++) ldmatrix4(a[0][i], (halo ^ (k << 5)) + i * row); wgmma_fence(); "
     "for (int i = 0; i < S::m_tiles; i++) wgmma(E(), acc[i], a[0][i], wgmma_rows(weights + (k << 5), S::chunk));"),
    ("the same weights for every k", "conv.h", "wgmma_rows(weights + (k << 5), S::chunk)",
     "wgmma_rows(weights, S::chunk)"),
    ("wrong distance of weights' rows", "ptx.h", "static_cast<uint64_t>(bytes * 8 >> 4) << 32",
     "static_cast<uint64_t>(bytes * 4 >> 4) << 32"),
    ("another swizzle", "ptx.h", "(@bytes == 128 ? 1 : 2@) << 62", "bytes == 128 ? 2 : 1"),
    ("a band of the wrong channels", "conv_finish.h", "acc[i][@band * 4 + c / 2@]", "c / 2"),
    ("keys beyond the last", "attention.cu", "v = key < a.tokens ? v * to_log2 : -INFINITY;", "v = v * to_log2;"),
    ("outputs not rescaled", "attention.cu", "out[n][m][i] *= factor;", "out[n][m][i] *= 1;"),
    ("sums not rescaled", "attention.cu", "state[half].sum *= factor;", ""),
    ("maxima read too early", "attention.cu", "} @block_sync();@ #pragma unroll for (int half = 0; half < 2; half++) { "
     "const int row = wq", ""),
    ("stage of the ring too few", "attention.cu", "load_ahead(a, frame, s, @index + stages - 1@, chunks, total); "
     "scores_add", "index + stages"),
    ("reduction without barrier", "norm.cu", "@block_sync();@ if (tid < half)", ""),
    ("variance not biased", "norm.cu", "ldg(sums + group * 2 + 1) / n - mean * mean",
     "ldg(sums + group * 2 + 1) / (n - 1)"),
    ("scale too small", "norm.cu", "exp2(@ceil@(128 * log2(", "floor"),
    ("range shrinks", "norm.cu", "else if (@scale < before.scale@) scale = before.scale;", "false"),
    ("range of numbers that are not finite", "norm.cu", "whole == 0 && most < INFINITY ? most : INFINITY", "most"),
    ("extremes of the wrong channel", "norm.cu", "(static_cast<int64_t>(frame) * a.pairs + a.groups + channel) * 2",
     "(static_cast<int64_t>(frame) * a.pairs + a.groups + channel / 2) * 2"),
    ("codes of the old range", "norm.cu", "if (old_scale == scale && old_zero == zero) return;", "return;"),
    ("zero point forgotten", "norm.cu", "round_even(v[c] * factor[c]) + zero", "round_even(v[c] * factor[c])"),
    ("scale of one plane", "norm.cu", "log2((high + low) / @(255 * a.planes)@)", "255"),
    ("planes alike", "norm.cu", "up.x[c / 4] |= to_u8(@code - down@)", "down"),
    ("planes on each other", "norm.cu", "a.out) + at + @a.c@), up);", "0"),
]
KIND = {"conv.h": "CONV", "conv_finish.h": "CONV", "conv_place.h": "CONV", "ptx.h": "CONV",
        "attention.cu": "ATTENTION", "norm.cu": "NORM"}
FLAGS = ["-std=c++17", "-DTSR_SHIM", "-D_GNU_SOURCE", "-O1", "-w"]


def place(text, old):
    """Where `old` stands, whatever its white space, without what is only there to find it; None unless just once."""
    parts = [r"\s*".join(re.escape(word) for word in part.split()) for part in old.split("@")]
    before, what, after = parts if len(parts) == 3 else ("", parts[0], "")
    found = list(re.finditer(rf"{before}\s*({what})\s*{after}", text))
    return found[0].span(1) if len(found) == 1 else None


def switch(number, old, new):
    """`old` as it is, and what takes its place where this fault is live."""
    if old[-1] in ";}":
        return f"if (tsr_fault == {number}) {{ {new} }} else {{ {old} }}"
    return f"(tsr_fault == {number} ? ({new}) : ({old}))"


class Program:
    """One file's checks with faults that do not overlap: (number, file, from, to, instead)."""

    def __init__(self, kind):
        self.kind, self.faults, self.exe = kind, [], None

    def takes(self, fault):
        return all(f[1] != fault[1] or f[3] <= fault[2] or fault[3] <= f[2] for f in self.faults)

    def build(self, root, cxx, archives, folder):
        shutil.copytree(os.path.join(root, "cuda"), folder)
        for number, file, start, end, new in sorted(self.faults, key=lambda f: -f[2]):
            path = os.path.join(folder, file)
            with open(path, encoding="utf-8") as f:
                text = f.read()
            with open(path, "w", encoding="utf-8") as f:
                f.write(text[:start] + switch(number, text[start:end], new) + text[end:])
        include = ["-I" + folder] + ["-I" + os.path.join(root, p) for p in ("engine", "engine/include", "tests/cuda")]
        exe = os.path.join(folder, "mutant")
        subprocess.run(cxx.split() + FLAGS + ["-DMUTANT_" + self.kind] + include +
                       [os.path.join(root, "tests/cuda/mutant_main.cc"), "-Wl,--start-group"] + archives +
                       ["-Wl,--end-group", "-lm", "-o", exe], check=True)
        self.exe = exe


def programs_of(root, jobs):
    """All faults, in as few programs as they fit; and the names of those whose place is not there."""
    programs, homeless = [Program(k) for k in sorted(set(KIND.values()))], []
    for number, (name, file, old, new) in enumerate(jobs, 1):
        with open(os.path.join(root, "cuda", file), encoding="utf-8") as f:
            span = place(f.read(), old)
        if not span:
            homeless.append(name)
            continue
        fault = (number, file, span[0], span[1], new)
        home = next((p for p in programs if p.kind == KIND[file] and p.takes(fault)), None)
        if not home:
            home = Program(KIND[file])
            programs.append(home)
        home.faults.append(fault)
    return programs, homeless


def run(exe, number):
    """What is wrong with the checks' answer to this fault; None: nothing. 0: no fault is live."""
    done = subprocess.run([exe, str(number)], capture_output=True, text=True, timeout=120)
    said = done.stdout.strip()
    if number == 0:
        return None if done.returncode == 0 else f"the sources as they are fail: {said}"
    print(f"# {said or 'passes'}", flush=True)
    return None if done.returncode == 1 and said else f"not caught (exit status {done.returncode})"


def main():
    args = sys.argv[1:]
    only = args[args.index("--only") + 1:] if "--only" in args else []
    root, cxx, archives = args[0], args[1], [a for a in args[2:] if a.endswith(".a")]
    programs, homeless = programs_of(root, [m for m in MUTANTS if not only or m[0] in only])
    names = [m[0] for m in MUTANTS if not only or m[0] in only]
    first = {p.kind: p for p in reversed(programs)}.values()
    jobs = [(p, 0) for p in first] + [(p, f[0]) for p in programs for f in p.faults]
    print(f"1..{len(jobs) + len(homeless)}")
    results = [(name, "the place to spoil is not there, or not just once") for name in homeless]
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda p: p[1].build(root, cxx, archives, os.path.join(folder, str(p[0]))), enumerate(programs)))
        wrong = pool.map(lambda j: run(j[0].exe, j[1]), jobs)
        results += [(names[n - 1] if n else f"unspoiled {p.kind}", w) for (p, n), w in zip(jobs, wrong)]
    for i, (name, w) in enumerate(results, 1):
        print(f"{'not ok' if w else 'ok'} {i} - {name}" + (f": {w}" if w else ""), flush=True)
    sys.exit(any(w for _, w in results))


main()
