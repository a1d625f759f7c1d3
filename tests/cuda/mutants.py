#!/usr/bin/env python3
"""Mutation test: would the checks notice? Plants one fault at a time into the CUDA kernels' source, compiles the result
for the CPU with the host shim, and fails where the checks still pass. The sources unspoiled must pass.

    mutants.py ROOT CXX CC [NAME...]     NAME: only these faults
"""
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile

# name, file, what stands there (once; spaces and line breaks are alike), what stands there instead
MUTANTS = [
    ("missing barrier", "conv.h", "block_sync(); /* this step's data", "/* this step's data"),
    ("short wait", "conv.h", "cp_wait<S::weight_stages - 2>()", "cp_wait<S::weight_stages - 1>()"),
    ("halo fetched too late", "conv.h", "if (i < S::fetch_steps) conv_load_halo<S, E>(a, b, ahead, halos + next_halo * "
     "S::halo_bytes, i * S::turns_a_step, i + 1 == S::fetch_steps ? S::halo_turns : (i + 1) * S::turns_a_step);",
     "if (i == S::steps - 1) conv_load_halo<S, E>(a, b, ahead, halos + next_halo * S::halo_bytes, 0, S::halo_turns);"),
    ("weights overwritten while read", "conv.h", "streams + next_weights * S::weight_bytes",
     "streams + weight_slot * S::weight_bytes"),
    ("halo overwritten while read", "conv.h", "halos + next_halo * S::halo_bytes", "halo"),
    ("wrong swizzle", "conv.h", "(((lane >> 4) ^ TSR_CONV_SWIZZLE(column, S::chunk)) << 4)", "((lane >> 4) << 4)"),
    ("halo off by one row", "conv.h", "b.iy = b.oy * S::stride - (a.pad_top - b.p)",
     "b.iy = b.oy * S::stride - (a.pad_top - b.p) + 1"),
    ("halo off by one column", "conv.h", "b.ix + hx,", "b.ix + hx - 1,"),
    ("no fill right of the picture", "conv.h", "static_cast<unsigned>(x) < static_cast<unsigned>(a.w) &&", "x >= 0 &&"),
    ("no fill below the picture", "conv.h", "static_cast<unsigned>(y) < static_cast<unsigned>(a.h) &&", "y >= 0 &&"),
    ("padding of code 0", "conv.h", "static_cast<uint32_t>(b.zero) * 0x01010101u", "0"),
    ("no zero-point correction", "conv.h", "ldg(a.weight_sum + b.phase * n_padded + n + c) * b.zero", "0"),
    ("cache taken for the first frame", "conv.h", "frame < 0 ? a.past : a.in", "frame <= 0 ? a.past : a.in"),
    ("wrong phase", "conv.h", "b.r = b.phase & 1;", "b.r = b.phase >> 1;"),
    ("wrong border class", "conv.h", "ey = b.p ? y == a.h - 1 : y == 0", "ey = b.p ? y == 0 : y == a.h - 1"),
    ("columns not by parity", "conv.h", "(x & 1) * ((S::halo_w + 1) / 2) + (x >> 1)", "x"),
    ("residual forgotten", "conv.h", "if (a.accumulate) { packed = ldg(p);", "if (false) { packed = ldg(p);"),
    ("statistics before rounding", "conv.h", "v[c] = unpack16(a.out_type, packed.x[c / 2], 0); v[c + 1] = "
     "unpack16(a.out_type, packed.x[c / 2], 1);", ""),
    ("statistics over live data", "conv.h", "if (a.partial) block_sync(); /* all warps have left", "/* all warps have left"),
    ("statistics' lanes in one bank", "conv.h", "channel ^ (channel >> 3 & 7)", "channel"),
    ("pixels beyond the picture counted", "conv.h", "x >= a.cols ||", "false ||"),
    ("warpgroup without a fence", "conv.h", "wgmma_fence();", ""),
    ("warpgroup not waited for", "conv.h", "wgmma_wait();", ""),
    ("products of a warpgroup not closed", "conv.h", "wgmma_commit();", ""),
    ("copies not published to the warpgroup", "conv.h", "if constexpr (S::warpgroup) wgmma_publish();", ""),
    ("pixels overwritten in flight", "conv.h", "ldmatrix4(a[k][i], (halo ^ (k << 5)) + i * row); wgmma_fence(); #pragma unroll "
     "for (int i = 0; i < S::m_tiles; i++) wgmma(E(), acc[i], a[k][i],",
     "ldmatrix4(a[0][i], (halo ^ (k << 5)) + i * row); wgmma_fence(); for (int i = 0; i < S::m_tiles; i++) "
     "wgmma(E(), acc[i], a[0][i],"),
    ("the same weights for every k", "conv.h", "wgmma_rows(weights + (k << 5), S::chunk)", "wgmma_rows(weights, S::chunk)"),
    ("wrong distance of weights' rows", "ptx.h", "static_cast<uint64_t>(bytes * 8 >> 4) << 32", "static_cast<uint64_t>(bytes * 4 >> 4) << 32"),
    ("another swizzle", "ptx.h", "(bytes == 128 ? 1 : 2) << 62", "(bytes == 128 ? 2 : 1) << 62"),
    ("a band of the wrong channels", "conv.h", "acc[i][band * 4 + c / 2]", "acc[i][c / 2]"),
    ("keys beyond the last", "attention.cu", "v = key < a.tokens ? v * to_log2 : -INFINITY;", "v = v * to_log2;"),
    ("outputs not rescaled", "attention.cu", "out[n][m][i] *= factor;", "out[n][m][i] *= 1;"),
    ("sums not rescaled", "attention.cu", "state[half].sum *= factor;", ""),
    ("maxima read too early", "attention.cu", "} block_sync(); #pragma unroll for (int half = 0; half < 2; half++) { const "
     "int row = wq", "} #pragma unroll for (int half = 0; half < 2; half++) { const int row = wq"),
    ("stage of the ring too few", "attention.cu", "load_ahead(a, frame, s, index + stages - 1, chunks, total); "
     "scores_add", "load_ahead(a, frame, s, index + stages, chunks, total); scores_add"),
    ("reduction without barrier", "norm.cu", "block_sync(); if (tid < half)", "if (tid < half)"),
    ("variance not biased", "norm.cu", "ldg(sums + group * 2 + 1) / n - mean * mean", "ldg(sums + group * 2 + 1) / (n - 1)"),
    ("scale too small", "norm.cu", "exp2(ceil(128 * log2((high + low) / 255)) / 128)", "exp2(floor(128 * log2((high + low) / 255)) / 128)"),
    ("range shrinks", "norm.cu", "else if (scale < before.scale) scale = before.scale;", ""),
    ("range of numbers that are not finite", "norm.cu", "whole == 0 && most < INFINITY ? most : INFINITY", "most"),
    ("extremes of the wrong channel", "norm.cu", "(static_cast<int64_t>(frame) * a.pairs + a.groups + channel) * 2",
     "(static_cast<int64_t>(frame) * a.pairs + a.groups + channel / 2) * 2"),
    ("codes of the old range", "norm.cu", "if (old_scale == scale && old_zero == zero) return;", "return;"),
    ("zero point forgotten", "norm.cu", "round_even(v[c] * factor[c]) + zero", "round_even(v[c] * factor[c])"),
]
KIND = {"conv.h": "CONV", "ptx.h": "CONV", "attention.cu": "ATTENTION", "norm.cu": "NORM"}
FLAGS = ["-DTSR_SHIM", "-D_GNU_SOURCE", "-O1", "-w"]


def plant(text, old, new):
    """The text with `old` replaced, whatever its white space; None unless it is there exactly once."""
    pattern = r"\s*".join(re.escape(word) for word in old.split())
    text, times = re.subn(pattern, lambda m: new.replace("#pragma", "\n#pragma").replace("unroll for", "unroll\nfor"), text)
    return text if times == 1 else None


class Bench:
    def __init__(self, root, cxx, cc, folder):
        self.root, self.cxx, self.folder = root, cxx.split(), folder
        self.include = ["-I" + os.path.join(root, p) for p in ("engine", "engine/include", "tests/cuda")]
        self.common = [os.path.join(folder, n + ".o") for n in ("shim", "checks", "dtype", "pack")]
        plain = ["-I" + os.path.join(root, "cuda")]
        sources = ["cuda/shim/shim.cc", "tests/cuda/checks.cc", "engine/core/dtype.c", "engine/backend/cuda/pack.c"]
        for source, to in zip(sources, self.common):
            compiler = self.cxx + ["-std=c++17"] if source.endswith("cc") else cc.split() + ["-std=c11"]
            subprocess.run(compiler + FLAGS + self.include + plain + ["-c", os.path.join(root, source), "-o", to], check=True)

    def run(self, name, file, old, new):
        """None where the fault is caught, else what is wrong."""
        folder = os.path.join(self.folder, name.replace(" ", "_").replace("'", ""))
        shutil.copytree(os.path.join(self.root, "cuda"), folder)
        path = os.path.join(folder, file)
        with open(path, encoding="utf-8") as f:
            text = f.read()
        if old is not None:
            text = plant(text, old, new)
            if text is None:
                return "the place to spoil is not there, or not just once"
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
        exe = os.path.join(folder, "mutant")
        main = os.path.join(self.root, "tests/cuda/mutant_main.cc")
        subprocess.run(self.cxx + ["-std=c++17", "-DMUTANT_" + KIND[file]] + FLAGS + ["-I" + folder] + self.include +
                       [main] + self.common + ["-lm", "-o", exe], check=True)
        done = subprocess.run([exe], capture_output=True, text=True, timeout=120)
        said = done.stdout.strip()
        print(f"# {name}: {said or 'passes'}", flush=True)
        if old is None:
            return None if done.returncode == 0 else f"the sources as they are fail: {said}"
        return None if done.returncode == 1 and said else f"not caught (exit status {done.returncode})"


def main():
    root, cxx, cc, only = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
    jobs = [(f"unspoiled {f}", f, None, None) for f in KIND if f != "ptx.h"] + MUTANTS
    jobs = [j for j in jobs if not only or j[0] in only]
    bad = 0
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(min(4, os.cpu_count())) as pool:
        bench = Bench(root, cxx, cc, folder)
        print(f"1..{len(jobs)}")
        for n, (job, wrong) in enumerate(zip(jobs, pool.map(lambda j: bench.run(*j), jobs)), 1):
            bad += wrong is not None
            print(f"{'not ok' if wrong else 'ok'} {n} - {job[0]}" + (f": {wrong}" if wrong else ""), flush=True)
    sys.exit(bool(bad))


main()
