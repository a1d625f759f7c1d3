#!/usr/bin/env python3
"""pytorch.py WIDTH HEIGHT LATENTS [cpu]: whole decodes by PyTorch in bf16, as Tessera's are held against them: as
shipped (eager, channels first, a latent at a time with remembered frames), tuned (channels last, cuDNN's fastest
algorithms) and compiled. The network has the published widths and random weights. Status 77: no PyTorch with a GPU
here."""
import sys
import time


def arguments():
    """width, height, latents, device"""
    size, rest = sys.argv[1:4], sys.argv[4:]
    right = len(size) == 3 and all(v.isdecimal() and int(v) > 0 for v in size) and rest in ([], ["cpu"])
    if not right or int(size[0]) % 8 or int(size[1]) % 8:
        print("pytorch.py: wanted are WIDTH HEIGHT LATENTS, the first two multiples of 8, and perhaps cpu",
              file=sys.stderr)
        sys.exit(2)
    return *map(int, size), rest[0] if rest else "cuda"


ARGUMENTS = arguments()
try:
    import torch
    import torch.nn.functional as F
except (ImportError, OSError):
    print("- no PyTorch here")
    sys.exit(77)

WIDTHS, BLOCKS, LATENT = (512, 512, 256, 128), 3, 16  # of the decoder's levels; resnets a level
TEMPORAL = (True, True, False)  # which upsamplers double time


class Decoder:
    """Tensors are [1, channels, T, H, W]. cache: the last two frames of what each 3x3x3 conv has read."""

    def __init__(self, device, dtype, last, widths=WIDTHS):
        self.device, self.dtype, self.last, self.widths = device, dtype, last, widths
        self.weights, self.cache, self.first = {}, {}, True
        top = widths[0]
        self.add("in", LATENT, top)
        for name in ("mid0", "mid1"):
            self.add_resnet(name, top, top)
        self.add("qkv", top, 3 * top, 1)
        self.add("out", top, top, 1)
        self.add_norm("attention", top)
        for level, width in enumerate(widths):
            before = widths[max(level - 1, 0)]
            for i in range(BLOCKS):
                self.add_resnet(f"{level}.{i}", width if i else before, width)
            if level < len(widths) - 1:
                self.add(f"{level}.widen", width, width * (8 if TEMPORAL[level] else 4), 1)
                self.add(f"{level}.up", width, width)
        self.add_norm("last", widths[-1])
        self.add("pixels", widths[-1], 3)

    def place(self, t):
        t = t.to(self.device, self.dtype)
        return t.to(memory_format=torch.channels_last_3d) if self.last and t.dim() == 5 else t

    def add(self, name, cin, cout, k=3):
        weight = torch.randn(cout, cin, k, k, k) / (cin * k**3) ** 0.5
        self.weights[name] = self.place(weight), self.place(torch.zeros(cout))

    def add_norm(self, name, c):
        self.weights[name + ".norm"] = self.place(torch.ones(c)), self.place(torch.zeros(c))

    def add_resnet(self, name, cin, cout):
        self.add_norm(name + "a", cin)
        self.add(name + "a", cin, cout)
        self.add_norm(name + "b", cout)
        self.add(name + "b", cout, cout)
        if cin != cout:
            self.add(name + ".shortcut", cin, cout, 1)

    def conv(self, name, x):
        weight, bias = self.weights[name]
        if weight.shape[2] == 1:
            return F.conv3d(x, weight, bias)
        before = x[:, :, :1].expand(-1, -1, 2, -1, -1) if self.first else self.cache[name]
        x = torch.cat([before, x], 2)
        self.cache[name] = x[:, :, -2:].clone()
        return F.conv3d(x, weight, bias, padding=(0, 1, 1))

    def norm(self, name, x):
        _, c, t, h, w = x.shape
        y = F.group_norm(x.transpose(1, 2).reshape(t, c, h, w), 32, *self.weights[name + ".norm"], 1e-6)
        return y.reshape(1, t, c, h, w).transpose(1, 2)

    def resnet(self, name, x):
        y = self.conv(name + "a", F.silu(self.norm(name + "a", x)))
        y = self.conv(name + "b", F.silu(self.norm(name + "b", y)))
        return y + (self.conv(name + ".shortcut", x) if name + ".shortcut" in self.weights else x)

    def attention(self, x):
        _, c, t, h, w = x.shape
        y = self.conv("qkv", self.norm("attention", x)).permute(0, 2, 3, 4, 1).reshape(t, 1, h * w, 3 * c)
        y = F.scaled_dot_product_attention(*y.chunk(3, -1))
        return x + self.conv("out", y.reshape(1, t, h, w, c).permute(0, 4, 1, 2, 3))

    def upsample(self, level, x):
        _, c, t, h, w = x.shape
        z = 2 if TEMPORAL[level] else 1
        y = self.conv(f"{level}.widen", x).reshape(2, 2, z, c, t, h, w)
        y = y.permute(3, 4, 2, 5, 0, 6, 1).reshape(1, c, t * z, 2 * h, 2 * w)
        if z == 2 and self.first:
            y = torch.cat([y[:, :, :1], y[:, :, 2:]], 2)
        return self.conv(f"{level}.up", y)

    def step(self, x):
        x = self.resnet("mid1", self.attention(self.resnet("mid0", self.conv("in", x))))
        for level in range(len(self.widths)):
            for i in range(BLOCKS):
                x = self.resnet(f"{level}.{i}", x)
            if level < len(self.widths) - 1:
                x = self.upsample(level, x)
        return self.conv("pixels", F.silu(self.norm("last", x)))


@torch.no_grad()
def decode(net, step, z):
    """The clip, a latent at a time; the first by itself."""
    net.cache.clear()
    frames = 0
    for t in range(z.shape[2]):
        net.first = t == 0
        frames += step(net.place(z[:, :, t:t + 1])).shape[2]
    if net.device == "cuda":
        torch.cuda.synchronize()
    return frames


def measure(name, net, step, z, size, rounds=4):
    cuda = net.device == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    took = []
    for _ in range(rounds + 2):  # two that warm up
        begin = time.monotonic()
        frames = decode(net, step, z)
        took.append(time.monotonic() - begin)
    best = min(took[2:])
    peak = f", peak {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB" if cuda else ""
    print(f"- {size} by PyTorch, {name}: {frames / best:.2f} frames/s ({frames} frames in {best:.3f} s, "
          f"the first time {took[0]:.1f} s){peak}", flush=True)


def main():
    width, height, latents, device = ARGUMENTS
    if device == "cuda" and not torch.cuda.is_available():
        print("- no GPU that PyTorch sees")
        return 77
    where = "on the CPU, for the way alone"
    if device == "cuda":
        where = f"cuDNN {torch.backends.cudnn.version()}, {torch.cuda.get_device_name()}"
    print(f"- PyTorch {torch.__version__}, {where}")
    z, bad = torch.randn(1, LATENT, latents, height // 8, width // 8), 0
    for name, last, compiled in (("bf16 as shipped", False, False),
                                 ("bf16, channels last, cudnn.benchmark", True, False),
                                 ("bf16, channels last, cudnn.benchmark, torch.compile", True, True)):
        torch.backends.cudnn.benchmark = last
        net = Decoder(device, torch.bfloat16, last)
        try:
            measure(name, net, torch.compile(net.step) if compiled else net.step, z, f"{width} x {height}")
        except Exception as e:  # memory, or a compiler that is not there: the others still count
            bad = 1
            print(f"- {name}: {type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}", flush=True)
    return bad


if __name__ == "__main__":
    sys.exit(main())
