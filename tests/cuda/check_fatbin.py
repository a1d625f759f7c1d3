#!/usr/bin/env python3
"""What the compiler made of the CUDA kernels: reads the fatbin's cubins (ELF) and checks, for each architecture, that
every kernel is there and no other, spills nothing, keeps within the registers and shared memory that
engine/backend/cuda/kernels.h claims for it, and multiplies by the instruction that is meant for it.

    check_fatbin.py FATBIN KERNELS_H [--table]        --table: print registers, code bytes and products of each kernel
    check_fatbin.py FATBIN KERNELS_H --self-test      spoils claims and code, and fails unless each spoiling is seen
"""
import re
import struct
import sys

ARCHS = [80, 86, 89, 90, 120]
SHARED_LIMIT, SHARED_LIMIT_HOPPER = 99 << 10, 227 << 10
# Opcodes are the low 12 bits of a 16-byte instruction.
PRODUCTS = {"HMMA": 0x23C, "IMMA": 0x237, "QMMA": 0x27A, "QMMA.SF": 0x47A,
            "HGMMA": 0xDF0, "IGMMA": 0xDF1, "QGMMA": 0xDF3}
HOPPER = {"HMMA": "HGMMA", "IMMA": "IGMMA", "QMMA": "QGMMA"}  # by warpgroups
LDSM, LDGSTS = 0x83B, 0xFAE
WARPGROUP, AWAITED = 0x9C5, 1 << 47  # WARPGROUP.ARRIVE; with the bit, .DEPBAR
EIATTR_REGCOUNT, EIATTR_FRAME_SIZE = 0x2F, 0x11


def wanted_product(kernel, arch):
    """The tensor core instruction a kernel must use on an architecture; None: it uses none."""
    product = None
    if "f16" in kernel:  # f16 and bf16
        product = "HMMA"
    elif "_u8_" in kernel:
        product = "IMMA"
    elif "_e4m3_" in kernel:
        product = "QMMA.SF" if arch == 120 else "QMMA"
    return HOPPER[product] if hoppers(kernel) else product


def hoppers(kernel):
    return re.search(r"_K\d\d[HJ]$", kernel) is not None


def exists(kernel, arch):
    if hoppers(kernel):
        return arch == 90
    return "_e4m3_" not in kernel or arch in (89, 120)


# ------------------------------------------------------------------ kernels.h


def shapes(header, name):
    body = re.search(r"#define TSR_CONV_SHAPES_%s\(X\)((?:.*\\\n)*.*)" % name, header).group(1)
    for line in re.findall(r"X\(([^)]*)\)", body):
        fields = [f.strip() for f in line.split(",")]
        yield fields[0], [int(f) for f in fields[1:]]


def conv_shared(th, chunk, couts, kh, kw, s, step, halos, weights):
    halo = ((th - 1) * s + kh) * (15 * s + kw) * chunk
    return (halo + 127) // 128 * 128 * halos + step * couts * chunk * weights


def claims(header):
    """kernel -> (blocks an SM must hold, shared memory of one)"""
    blocks = {k: int(v) for k, v in re.findall(r"#define TSR_(\w+)_BLOCKS (\d+)", header)}
    shared = {k: eval(v.split("/*")[0].replace("TSR_ATTENTION_STAGES", "3"))
              for k, v in re.findall(r"#define TSR_(\w+)_SHARED (.*)", header)}
    out = {}
    for elem in ("f16", "bf16", "e4m3", "u8"):
        groups = {"f16": ("8", "16", "F16", "8H", "F16H"), "bf16": ("8", "16", "8H")}
        for group in groups.get(elem, ("8", "8H")):
            for name, numbers in shapes(header, group):
                out[f"tsr_conv_{elem}_{name}"] = blocks["CONV"], conv_shared(*numbers)
    for name, n in blocks.items():
        kernels = ["tsr_attention_f16", "tsr_attention_bf16"] if name == "ATTENTION" else ["tsr_" + name.lower()]
        if name != "CONV":
            out.update({k: (n, shared.get(name, 0)) for k in kernels})
    return out


# ------------------------------------------------------------------ fatbin and cubins


def cubins(data):
    magic, _, head, size = struct.unpack_from("<IHHQ", data, 0)
    if magic != 0xBA55ED50:
        sys.exit("check_fatbin: not a fatbin")
    at, end = head, head + size
    while at < end:
        kind, _, head, size = struct.unpack_from("<HHIQ", data, at)
        (arch,) = struct.unpack_from("<I", data, at + 28)
        yield kind, arch, data[at + head:at + head + size]
        at += head + size


def sections(elf):
    (table,) = struct.unpack_from("<Q", elf, 40)
    size, count, names = struct.unpack_from("<HHH", elf, 58)
    heads = [struct.unpack_from("<IIQQQQIIQQ", elf, table + i * size) for i in range(count)]
    base = heads[names][4]
    for h in heads:
        name = elf[base + h[0]:elf.index(b"\0", base + h[0])].decode()
        yield name, elf[h[4]:h[4] + h[5]] if h[1] != 8 else b""


def symbols(parts):
    names = parts[".strtab"]
    for at in range(0, len(parts[".symtab"]), 24):
        (name,) = struct.unpack_from("<I", parts[".symtab"], at)
        yield names[name:names.index(b"\0", name)].decode()


def attributes(info, kind):
    """symbol index -> value, of the 8-byte attributes of one kind"""
    out, at = {}, 0
    while at < len(info):
        form, attr, size = struct.unpack_from("<BBH", info, at)
        at += 4
        if form == 4:
            if attr == kind and size == 8:
                symbol, value = struct.unpack_from("<II", info, at)
                out[symbol] = value
            at += size
    return out


def opcodes(code):
    count = {}
    for at in range(0, len(code), 16):
        op = struct.unpack_from("<H", code, at)[0] & 0xFFF
        count[op] = count.get(op, 0) + 1
    return count


def awaits(code):
    """How often products of a warpgroup are waited for. Once a step: where the compiler cannot keep them in flight it
    waits for each, and says so only in passing."""
    words = [struct.unpack_from("<Q", code, at)[0] for at in range(0, len(code), 16)]
    return sum(word & 0xFFF == WARPGROUP and word & AWAITED != 0 for word in words)


def check_cubin(arch, elf, claimed, table):
    parts = dict(sections(elf))
    names = list(symbols(parts))
    registers = {names[k]: v for k, v in attributes(parts[".nv.info"], EIATTR_REGCOUNT).items()}
    frames = {names[k]: v for k, v in attributes(parts[".nv.info"], EIATTR_FRAME_SIZE).items()}
    for name in parts:
        if name.startswith(".text.") and name[len(".text."):] not in claimed:
            yield f"sm_{arch} {name[len('.text.'):]}: is there, but kernels.h has no such kernel"
    for kernel, (blocks, shared) in sorted(claimed.items()):
        where, code = f"sm_{arch} {kernel}", parts.get(".text." + kernel)
        if not exists(kernel, arch):
            if code:
                yield f"{where}: is there, but would be emulated"
            continue
        if not code:
            yield f"{where}: is missing"
            continue
        ops, regs = opcodes(code), (registers[kernel] + 7) // 8 * 8
        if frames[kernel]:
            yield f"{where}: spills, {frames[kernel]} bytes of stack"
        if regs * 256 * blocks > 65536:
            yield f"{where}: {regs} registers, too many for {blocks} blocks"
        if shared * blocks > (SHARED_LIMIT_HOPPER if hoppers(kernel) else SHARED_LIMIT):
            yield f"{where}: {shared} bytes of shared memory, too many for {blocks} blocks"
        wanted = wanted_product(kernel, arch)
        for product, op in PRODUCTS.items():
            if (product == wanted) != (op in ops):
                yield f"{where}: {'no' if product == wanted else 'has'} {product}"
        if hoppers(kernel) and awaits(code) != 1:
            yield f"{where}: products are waited for in {awaits(code)} places, meant is one"
        if wanted and not (LDSM in ops and LDGSTS in ops):
            yield f"{where}: no LDSM or no LDGSTS"
        if table:
            print(f"sm_{arch:<4} {kernel:24} {registers[kernel]:4} registers {len(code):6} bytes "
                  f"{ops.get(PRODUCTS.get(wanted), 0):5} {wanted or ''}")


def check(data, claimed, table=False):
    wrong, seen, ptx = [], [], []
    for kind, arch, body in cubins(data):
        if kind == 2:
            seen.append(arch)
            wrong += check_cubin(arch, body, claimed, table)
        else:
            ptx.append(arch)
    if sorted(seen) != ARCHS or ptx != [89]:
        wrong.append(f"cubins for {sorted(seen)} and PTX for {ptx}, expected {ARCHS} and [89]")
    return wrong


def self_test(data, claimed):
    def without(op):  # every instruction `op` of every conv made another
        spoiled = bytearray(data)
        for _, _, body in (c for c in cubins(data) if c[0] == 2):
            base = data.index(body)
            for name, code in sections(body):
                start = base + body.index(code) if name.startswith(".text.tsr_conv") else -1
                for at in range(0, len(code) if start >= 0 else 0, 16):
                    if struct.unpack_from("<H", code, at)[0] & 0xFFF == op:
                        spoiled[start + at] ^= 1
        return bytes(spoiled)

    missed = []
    for name, blocks, shared in (("tsr_norm", 8, 512), ("tsr_conv_f16_K33", 1, 100 << 10), ("tsr_nothing", 1, 0)):
        if len(check(data, {**claimed, name: (blocks, shared)})) < 1:
            missed.append(f"claim {name} {blocks} {shared}")
    if not check(data, {k: v for k, v in claimed.items() if k != "tsr_conv_bf16_K33N"}):
        missed.append("a kernel that nobody claims")
    for op in (*PRODUCTS.values(), LDSM, LDGSTS, WARPGROUP):
        if not check(without(op), claimed):
            missed.append(f"opcode {op:x}")
    return missed


def main():
    files = [a for a in sys.argv[1:] if not a.startswith("--")]
    with open(files[0], "rb") as f:
        data = f.read()
    with open(files[1], encoding="utf-8") as f:
        claimed = claims(f.read())
    if "--self-test" in sys.argv:
        wrong = ["not seen: " + m for m in self_test(data, claimed)]
    else:
        wrong = check(data, claimed, "--table" in sys.argv)
    for w in wrong:
        print("check_fatbin: " + w)
    print(f"{len(claimed)} kernels, {len(ARCHS)} architectures: {len(wrong)} complaints")
    sys.exit(bool(wrong))


main()
