#!/usr/bin/env python3
"""Speed beside PyTorch in eager f32, on the same threads, in turns: what `meson test --benchmark pytorch` runs.

    bench_pytorch.py TESSERA SYNTHETIC_MODEL [--model FILE] [--size 16] [--latents 2,1] [--precision int8,f32] [--rounds 3]
                     [--threads N]

The model is random weights of the published size where none is given. First both decode one latent in f32, and what they
give is compared; then they take turns, and medians and their ratios are printed. Needs PyTorch; Tessera does not.
"""
import argparse
import json
import math
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time

try:
    import torch
    import torch.nn.functional as F
except (ImportError, OSError) as e:
    print('bench_pytorch: no PyTorch here (%s); pip install torch' % e, file=sys.stderr)
    sys.exit(77)

# ---------------------------------------------------------------- the decoder, eagerly: tensors are [channels, T, H, W]


def conv(sd, name, x, pad=1):
    """Causal in time: the first frame stands in for those before it."""
    w, b = sd[name + '.weight'], sd[name + '.bias']
    if w.shape[2] > 1:
        x = torch.cat([x[:, :1].expand(-1, w.shape[2] - 1, -1, -1), x], 1)
    return F.conv3d(x[None], w, b, padding=(0, pad, pad))[0]


def norm(sd, name, x):
    """Of 32 groups, each frame by itself."""
    return F.group_norm(x.transpose(0, 1), 32, sd[name + '.weight'], sd[name + '.bias'], 1e-6).transpose(0, 1)


def resnet(sd, p, x):
    y = conv(sd, p + '.conv1', F.silu(norm(sd, p + '.norm1', x)))
    y = conv(sd, p + '.conv2', F.silu(norm(sd, p + '.norm2', y)))
    shortcut = p + '.conv_shortcut'
    return y + (conv(sd, shortcut, x, 0) if shortcut + '.weight' in sd else x)


def attention(sd, p, x):
    c, t, h, w = x.shape
    y = norm(sd, p + '.group_norm', x).permute(1, 2, 3, 0).reshape(t, h * w, c)
    q, k, v = (F.linear(y, sd[p + n + '.weight'], sd[p + n + '.bias']) for n in ('.to_q', '.to_k', '.to_v'))
    y = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(c), -1) @ v
    y = F.linear(y, sd[p + '.to_out.0.weight'], sd[p + '.to_out.0.bias'])
    return x + y.reshape(t, h, w, c).permute(3, 0, 1, 2)


def upsample(sd, p, x):
    """Channels to rows, columns and frames, but for the second copy of the first frame; then a conv."""
    c, t, h, w = x.shape
    z = sd[p + '.upscale_conv.weight'].shape[0] // (4 * c)
    y = conv(sd, p + '.upscale_conv', x, 0).reshape(2, 2, z, c, t, h, w)
    y = y.permute(3, 4, 2, 5, 0, 6, 1).reshape(c, t * z, 2 * h, 2 * w)
    return conv(sd, p + '.conv', torch.cat([y[:, :1], y[:, z:]], 1) if z > 1 else y)


def numbered(sd, p):
    i = 0
    while any(k.startswith('%s.%d.' % (p, i)) for k in sd):
        yield '%s.%d' % (p, i)
        i += 1


@torch.no_grad()
def decode(sd, x):
    x = conv(sd, 'decoder.conv_in', x)
    x = resnet(sd, 'decoder.mid_block.resnets.0', x)
    if 'decoder.mid_block.attentions.0.to_q.weight' in sd:
        x = attention(sd, 'decoder.mid_block.attentions.0', x)
    x = resnet(sd, 'decoder.mid_block.resnets.1', x)
    for block in numbered(sd, 'decoder.up_blocks'):
        for p in numbered(sd, block + '.resnets'):
            x = resnet(sd, p, x)
        for p in numbered(sd, block + '.upsamplers'):
            x = upsample(sd, p, x)
    return conv(sd, 'decoder.conv_out', F.silu(norm(sd, 'decoder.conv_norm_out', x)))


# ---------------------------------------------------------------- files


def load(path):
    types = {'F32': torch.float32, 'F16': torch.float16, 'BF16': torch.bfloat16}
    with open(path, 'rb') as f:
        head = json.loads(f.read(struct.unpack('<Q', f.read(8))[0]))
        data = bytearray(f.read())
    head.pop('__metadata__', None)
    return {k: torch.frombuffer(data, dtype=types[d['dtype']], offset=d['data_offsets'][0],
                                count=math.prod(d['shape'])).reshape(d['shape']).float() for k, d in head.items()}


def save_latent(z, path):
    data = z.contiguous().numpy().tobytes()
    head = json.dumps({'latent_tensor': {'dtype': 'F32', 'shape': [1, *z.shape], 'data_offsets': [0, len(data)]}}).encode()
    with open(path, 'wb') as f:
        f.write(struct.pack('<Q', len(head)) + head + data)


# ---------------------------------------------------------------- both sides


def tessera(args, *command):
    r = subprocess.run([args.tessera, *command, '--json', '-m', args.model, '--device', 'cpu', '--threads', str(args.threads)],
                       capture_output=True)
    if r.returncode:
        sys.exit('bench_pytorch: %s' % r.stderr.decode().strip())
    return [json.loads(line) for line in r.stdout.decode().splitlines()]


def compare(args, sd, z, folder):
    """PSNR over a range of 2."""
    path, out = os.path.join(folder, 'z.safetensors'), os.path.join(folder, 'video.safetensors')
    save_latent(z, path)
    tessera(args, 'render', path, '-o', out, '--precision', 'f32', '--latent-scale', '1')
    video, = load(out).values()  # [3, frames, H, W]
    error = (video - decode(sd, z)).double().square().mean()
    return 10 * math.log10(4 / max(error.item(), 1e-300))


def measure(args, sd, latents, precisions):
    size = '%dx%dx%d' % (8 * args.size, 8 * args.size, 4 * latents - 3)
    z = torch.randn(16, latents, args.size, args.size)
    took = {name: [] for name in ['PyTorch', *precisions]}
    for i in range(args.rounds + 1):
        begin = time.monotonic()
        decode(sd, z)
        if i:  # the first makes threads and memory
            took['PyTorch'].append(time.monotonic() - begin)
        for p in precisions if i else []:
            events = tessera(args, 'bench', size, '--precision', p, '--repeat', '1', '--tile', 'none')
            took[p].append(events[-1]['seconds'])
    base = statistics.median(took['PyTorch'])
    print('latent %dx%d, T=%d' % (args.size, args.size, latents))
    for name, seconds in took.items():
        print('  %-8s %8.3f s (%.3f to %.3f)  %5.2f x' %
              (name, statistics.median(seconds), min(seconds), max(seconds), base / statistics.median(seconds)), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('tessera')
    parser.add_argument('synthetic_model')
    parser.add_argument('--model')
    parser.add_argument('--size', type=int, default=16)
    parser.add_argument('--latents', default='2,1')
    parser.add_argument('--precision', default='int8,f32')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--threads', type=int, default=min(2, os.cpu_count()))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    with tempfile.TemporaryDirectory(prefix='bench_pytorch-') as folder:
        if not args.model:
            args.model = os.path.join(folder, 'full.safetensors')
            subprocess.run([args.synthetic_model, '--full', args.model], check=True)
        sd = load(args.model)
        print('PyTorch %s, %s, %d threads' % (torch.__version__, torch.backends.cpu.get_cpu_capability(), args.threads))
        print('f32 agrees to %.1f dB' % compare(args, sd, torch.randn(16, 2, 4, 4), folder), flush=True)
        for latents in args.latents.split(','):
            measure(args, sd, int(latents), args.precision.split(','))


if __name__ == '__main__':
    main()
