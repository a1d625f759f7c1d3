"""speed.py: reads what `gpu_check ops` prints and shows each shape's rate beside cuBLAS's of the same M, N, K and
precision; where PyTorch is, beside its conv3d in bf16, channels last, the fastest algorithm."""
import re
import sys

try:
    import torch
    gpu = torch.cuda.is_available()
except ImportError:
    torch, gpu = None, False

CONV = re.compile(r"conv (\d+)x(\d+)x(\d+) (\d+)->(\d+) @ (\d+)x(\d+)x(\d+)")


def seconds(f):
    """Median of 20 runs after 5, by events."""
    times = []
    for i in range(25):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        f()
        b.record()
        b.synchronize()
        if i >= 5:
            times.append(a.elapsed_time(b) * 1e-3)
    return sorted(times)[len(times) // 2]


def conv3d(kt, kh, kw, cin, cout, t, h, w):
    x = torch.randn(1, cin, t + kt - 1, h, w, device="cuda", dtype=torch.bfloat16)
    f = torch.randn(cout, cin, kt, kh, kw, device="cuda", dtype=torch.bfloat16)
    x, f = (v.to(memory_format=torch.channels_last_3d) for v in (x, f))
    return seconds(lambda: torch.nn.functional.conv3d(x, f, padding=(0, kh // 2, kw // 2)))


def rate(flops, f, *args):
    """TFLOP/s as text; why not, where it fails: memory, a card without fp8."""
    try:
        return f"{flops / f(*args) * 1e-12:.0f}"
    except (RuntimeError, AttributeError) as e:
        return type(e).__name__


def main():
    if sys.argv[1:]:
        print(f"speed.py: '{sys.argv[1]}' is no option; it reads what gpu_check ops prints", file=sys.stderr)
        return 2
    lines = sys.stdin.read().splitlines()
    rows = [line.split("\t") for line in lines if line.count("\t") == 6]
    if not rows:
        print("\n".join(lines) or "- no ops came")
        return 1
    if not any(float(row[6]) for row in rows):
        print("- no cuBLAS here (libcublasLt.so.13): rates have no ceiling beside them")
    if gpu:
        torch.backends.cudnn.benchmark = True
    else:
        print("- no PyTorch with CUDA here: no conv3d to compare with")
    print("\n| step | shape | count | ms | TFLOP/s | GB/s | cuBLAS TFLOP/s | of it | PyTorch conv3d bf16 |\n|" +
          "---|" * 9)
    ours = theirs = 0.0
    for step, shape, count, *numbers in rows:
        took, flops, size, ceiling = map(float, numbers)
        share, torch_rate = "", ""
        if ceiling and took:
            share = f"{100 * flops / took / ceiling:.0f}%"
        conv = CONV.search(shape)
        if conv and gpu and step == "later" and took > 0:
            kt, kh, kw, cin, cout, t, h, w = map(int, conv.groups())
            torch_rate = rate(2.0 * t * h * w * cout * kt * kh * kw * cin, conv3d, kt, kh, kw, cin, cout, t, h, w)
            if torch_rate.isdigit() and int(torch_rate) > 0:
                ours += took
                theirs += flops / (int(torch_rate) * 1e12)
        print(f"| {step} | {shape} | {count} | {1e3 * took:.3f} | {flops / took * 1e-12 if took else 0:.1f} | "
              f"{size / took * 1e-9 if took else 0:.0f} | {ceiling * 1e-12:.0f} | {share} | {torch_rate} |")
    if theirs:
        print(f"\n- convolutions of a later step: {1e3 * ours:.1f} ms here, "
              f"{1e3 * theirs:.1f} ms by PyTorch's conv3d alone")
    return 0


if __name__ == "__main__":
    sys.exit(main())
