#!/usr/bin/env python3
"""The way back from outside: encode, compare, convert. Prints TAP.

    test_cli_back.py TESSERA SYNTHETIC_MODEL [NAME...]
"""
import json
import math
import os
import random
import shutil
import signal
import struct
import subprocess
import sys

import test_cli
from test_cli import MODEL, TESSERA

MEDIA = os.path.join(os.environ['TSR_TEST_DATA'], 'media')


def read_safetensors(path):
    """{name: (shape, floats)}, metadata."""
    with open(path, 'rb') as f:
        head = json.loads(f.read(struct.unpack('<Q', f.read(8))[0]))
        blob = f.read()
    meta = head.pop('__metadata__', {})
    out = {}
    for name, t in head.items():
        begin, end = t['data_offsets']
        out[name] = (t['shape'], struct.unpack('<%df' % ((end - begin) // 4), blob[begin:end]))
    return out, meta


def write_npy(path, shape, values):
    text = "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }" % (tuple(shape),)
    text += ' ' * (-(len(text) + 11) % 64) + '\n'
    with open(path, 'wb') as f:
        f.write(b'\x93NUMPY\x01\x00' + struct.pack('<H', len(text)) + text.encode() + struct.pack('<%df' % len(values), *values))


class Back(test_cli.Case):
    def clip(self, name='clip.npy', frames=5, height=32, width=48, seed=1):
        rng = random.Random(seed)
        write_npy(self.path(name), (3, frames, height, width), [rng.uniform(-1, 1) for _ in range(3 * frames * height * width)])
        return name


class Encode(Back):
    def test_there_and_back(self):
        for name, frames, size in (('h264.mp4', 5, (64, 48)), ('odd.webm', 3, (33, 25)), ('rgba.png', 1, (64, 48)), ('turned_90.mp4', 5, (48, 64))):
            media = os.path.join(MEDIA, name)
            self.ok('encode', media, '-o', name + '.latent')
            self.ok('render', name + '.latent', '-o', name + '.npy')
            with open(self.path(name + '.npy'), 'rb') as f:
                self.assertIn(b'(3, %d, %d, %d)' % (frames, size[1], size[0]), f.read(128))
            compared = self.events('compare', name + '.npy', media)[-1]
            self.assertEqual((compared['frames'], compared['size']), (frames, list(size)))

    def test_latent_files(self):
        self.clip(frames=6, height=30, width=44)
        self.ok('encode', 'clip.npy', '-o', 'a.latent', '--stats')
        t, meta = read_safetensors(self.path('a.latent'))
        self.assertEqual({k: v[0] for k, v in t.items()}, {'latent_tensor': [1, 16, 3, 4, 6], 'latent_format_version_0': [0],
                                                          'mean': [1, 16, 3, 4, 6], 'logvar': [1, 16, 3, 4, 6]})
        self.assertEqual(meta, {'tessera.scale': '0.9152', 'tessera.crop_width': '44', 'tessera.crop_height': '30', 'tessera.crop_frames': '6'})
        for scaled, mean in zip(t['latent_tensor'][1], t['mean'][1]):
            self.assertAlmostEqual(scaled, mean * 0.9152, places=5)
        self.ok('encode', 'clip.npy', '-o', 'b.safetensors', '--latent-scale', 'none')
        self.assertEqual(read_safetensors(self.path('b.safetensors'))[0]['latent_tensor'][1], t['mean'][1])
        self.ok('encode', 'clip.npy', '-o', 'c.npy')
        with open(self.path('c.npy'), 'rb') as f:
            data = f.read()
        self.assertIn(b'(16, 3, 4, 6)', data[:128])
        self.assertEqual(struct.unpack('<%df' % (16 * 3 * 4 * 6), data[128:]), t['latent_tensor'][1])
        self.assertIn('48x32x9', self.ok('encode', 'clip.npy', '-o', 'd.latent').stderr.decode())
        for name in ('a.latent', 'b.safetensors', 'd.latent'):
            self.assertEqual(self.ok('render', name, '-o', '-', '--format', 'rgb24').stdout.__len__(), 44 * 30 * 6 * 3)

    def test_samples_are_seeded(self):
        self.clip(frames=1)
        take = lambda name, *args: self.ok('encode', 'clip.npy', '-o', name + '.safetensors', *args) and read_safetensors(self.path(name + '.safetensors'))[0]
        mean, again = take('m')['latent_tensor'], take('a')['latent_tensor']
        self.assertEqual(mean, again)
        draws = [take('s%d' % i, *args)['latent_tensor'] for i, args in enumerate((['--sample'], ['--sample', '0'], ['--sample=7'], ['--sample', '7'], ['--sample', '8']))]
        self.assertEqual(draws[0], draws[1])
        self.assertEqual(draws[2], draws[3])
        self.assertEqual(len({d[1] for d in draws} | {mean[1]}), 4)
        both = take('both', '--sample', '7', '--stats')
        self.assertEqual(both['latent_tensor'], draws[2])
        self.assertNotEqual(both['latent_tensor'][1], tuple(0.9152 * v for v in both['mean'][1]))

    def test_frames_are_a_part_of_the_clip(self):
        self.clip('all.npy', frames=7)
        with open(self.path('all.npy'), 'rb') as f:
            v = struct.unpack('<%df' % (3 * 7 * 32 * 48), f.read()[128:])
        plane = 32 * 48
        write_npy(self.path('part.npy'), (3, 5, 32, 48), [x for c in range(3) for x in v[(c * 7 + 1) * plane:(c * 7 + 6) * plane]])
        self.ok('encode', 'all.npy', '-o', 'a.npy', '--frames', '1:6')
        self.ok('encode', 'part.npy', '-o', 'b.npy')
        with open(self.path('a.npy'), 'rb') as a, open(self.path('b.npy'), 'rb') as b:
            self.assertEqual(a.read(), b.read())

    def test_tiles_and_budget(self):
        self.clip(frames=5, height=96, width=128)
        plan = [e for e in self.events('encode', 'clip.npy', '-o', 'a.latent', '--tile', '64', '--overlap', '16') if e['event'] == 'plan'][0]
        self.assertEqual(plan['mode'], 'tiled')
        self.assertLessEqual(max(plan['tile']), 64)
        done = self.events('encode', 'clip.npy', '-o', 'b.latent', '--tile', 'none')[-1]
        self.assertEqual((done['event'], done['frames'], done['latents'], done['latent_size']), ('done', 5, 2, [16, 12]))
        self.assertEqual(done['peak_bytes'], done['planned_bytes'])
        self.fails(1, 'encode', 'clip.npy', '-o', 'x.latent', '--vram', '1M', word='1.0 MiB')

    @test_cli.fails_allocations
    def test_memory_runs_short(self):
        self.clip()
        roomy = self.events('encode', 'clip.npy', '-o', 'a.npy', '--tile', 'none')
        self.env.update(LD_PRELOAD=os.environ['TSR_PRELOAD'], TSR_FAIL_ALLOC='2')
        short = self.events('encode', 'clip.npy', '-o', 'b.npy', '--tile', 'none')
        self.assertEqual([e['event'] for e in roomy if e['event'] not in ('progress', 'model')], ['plan', 'done'])
        self.assertEqual([e['event'] for e in short if e['event'] not in ('progress', 'model')], ['plan', 'warning', 'replan', 'plan', 'done'])
        self.assertLess(short[-1]['planned_bytes'], roomy[-1]['planned_bytes'])
        with open(self.path('a.npy'), 'rb') as a, open(self.path('b.npy'), 'rb') as b:
            self.assertEqual(a.read(), b.read())

    def test_refusals(self):
        self.clip(frames=1)
        self.fails(2, 'encode', 'clip.npy', word='-o')
        self.fails(1, 'encode', 'gone.mp4', '-o', 'x.latent', word='gone.mp4')
        self.fails(2, 'encode', 'clip.npy', '-o', 'x.mp4', word='x.mp4')
        self.fails(2, 'encode', 'clip.npy', '-o', 'x.npy', '--stats', word='statistics')
        self.fails(2, 'encode', 'clip.npy', '-o', 'x.latent', '--frames', '3:5', word='--frames')
        with open(os.path.join(MEDIA, 'h264.mp4'), 'rb') as f, open(self.path('cut.mp4'), 'wb') as g:
            g.write(f.read()[:2000])
        self.fails(1, 'encode', 'cut.mp4', '-o', 'x.latent', word='cut.mp4')
        self.ok('encode', 'clip.npy', '-o', 'a.latent')
        self.fails(1, 'encode', 'clip.npy', '-o', 'a.latent', word='a.latent')
        self.ok('encode', 'clip.npy', '-o', 'a.latent', '-y')
        demo = dict(self.env, TESSERA_MODEL=os.path.join(os.environ['TSR_TEST_DATA'], 'goldens/gguf/tiny_f16_native.gguf'))
        self.fails(1, 'encode', 'clip.npy', '-o', 'x.latent', word='holds no encoder', env=demo)

    def test_interrupted(self):
        self.clip(frames=101, height=32, width=32)
        p = subprocess.Popen([TESSERA, 'encode', 'clip.npy', '-o', 'a.latent', '--json'], cwd=self.folder, env=self.env,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for line in p.stdout:
            if json.loads(line).get('frames', 0) > 1 and b'"progress"' in line:
                break
        p.send_signal(signal.SIGINT)
        _, err = p.communicate(timeout=600)
        self.assertEqual(p.returncode, 130, err)
        self.assertEqual(err.decode().count('tessera: '), 1, err)
        self.assertEqual(self.files(), ['clip.npy'])


def weight(k, m):
    """Of the old batch: spec 6.3."""
    if m < 3:
        return 1.0 if k == 0 else 0.0
    return 0.5 + 0.5 * math.cos(math.pi * min(max((k / (m - 1) - 1 / 3) * 3, 0), 1))


class Join(Back):
    """--batch-overlap, --like, --psnr."""

    def floats(self, *args):
        self.ok('render', *args, '-o', 'x.npy', '-y')
        with open(self.path('x.npy'), 'rb') as f:
            data = f.read()
        return struct.unpack('<%df' % ((len(data) - 128) // 4), data[128:])

    def frames_of(self, v, width=48, height=32):
        """[frame][channel * height * width]"""
        plane, n = width * height, len(v) // (3 * width * height)
        return [[x for c in range(3) for x in v[(c * n + f) * plane:(c * n + f + 1) * plane]] for f in range(n)]

    def joined(self, parts, m):
        out = list(parts[0])
        for part in parts[1:]:
            for k in range(m):
                w = weight(k, m)
                out[len(out) - m + k] = [w * a + (1 - w) * b for a, b in zip(out[len(out) - m + k], part[k])]
            out += part[m:]
        return out

    def test_latents_fade_into_each_other(self):
        names = [self.latent('%d.latent' % i, frames=3, seed=i) for i in range(3)]
        parts = [self.frames_of(self.floats(name)) for name in names]
        for m in (1, 2, 3, 4):
            want, got = self.joined(parts, m), self.frames_of(self.floats(*names, '--batch-overlap', str(m)))
            self.assertEqual(len(got), 27 - 2 * m)
            for a, b in zip(want, got):
                self.assertLess(max(abs(x - y) for x, y in zip(a, b)), 1e-5)
        whole = self.frames_of(self.floats(*names, '--batch-overlap', '3'))
        for text, a, b in (('7:9', 7, 9), ('5:15', 5, 15), (':8', 0, 8), ('20:', 20, 21)):
            self.assertEqual(self.frames_of(self.floats(*names, '--batch-overlap', '3', '--frames', text)), whole[a:b], text)
        self.fails(2, 'render', *names, '-o', 'y.npy', '--batch-overlap', '5', word='--batch-overlap')
        self.assertIn('one video', self.ok('render', names[0], '-o', 'y.npy', '--batch-overlap', '2', '-y').stderr.decode())

    def test_joined_pixels_are_those_of_any_render(self):
        """Dithered on the host and by Vulkan: the same bytes where nothing fades."""
        a, b = self.latent('a.latent', seed=1), self.latent('b.latent', seed=2)
        for kind, size in (('rgb24', 48 * 32 * 3), ('rgb48', 48 * 32 * 6)):
            alone = self.ok('render', a, '-o', '-', '--format', kind).stdout
            both = self.ok('render', a, b, '-o', '-', '--format', kind, '--batch-overlap', '2').stdout
            self.assertEqual(len(both), 8 * size)
            self.assertEqual(both[:3 * size], alone[:3 * size])

    def test_cropped_latents_join_too(self):
        cut = [self.latent('%d.latent' % i, seed=i, crop_width=45, crop_height=29, crop_frames=4) for i in range(2)]
        self.assertEqual(len(self.ok('render', *cut, '-o', '-', '--format', 'rgb24', '--batch-overlap', '2').stdout), 6 * 45 * 29 * 3)

    def test_like(self):
        clip = os.path.join(MEDIA, 'sound.mp4')
        self.ok('encode', clip, '-o', 'a.latent')
        self.ok('render', 'a.latent', '-o', 'a.mp4', '--like', clip)
        self.ok('render', 'a.latent', '-o', 'a.mkv', '--like', clip, '--frames', '2:')
        self.ok('render', 'a.latent', '-o', 'a.y4m', '--like', clip)
        self.fails(2, 'render', 'a.latent', '-o', 'a.webm', '--like', clip, word='use mkv')
        self.fails(1, 'render', 'a.latent', '-o', 'b.mp4', '--like', 'gone.mp4', word='gone.mp4')
        if not shutil.which('ffprobe'):
            return
        probe = lambda *args: json.loads(subprocess.run(['ffprobe', '-v', 'error', '-show_streams', '-show_packets', '-of', 'json', *args],
                                                        capture_output=True, cwd=self.folder).stdout)
        source, mp4, mkv, y4m = probe(clip), probe('a.mp4'), probe('a.mkv'), probe('a.y4m')
        sizes = lambda p, first=0: [x['size'] for x in p['packets'] if x['codec_type'] == 'audio' and float(x['pts_time']) >= first]
        self.assertEqual([s['codec_name'] for s in mp4['streams']], ['h264', 'aac'])
        self.assertEqual([s['codec_name'] for s in y4m['streams']], ['rawvideo'])
        for p in (mp4, mkv, y4m):
            self.assertEqual(p['streams'][0]['avg_frame_rate'], '25/1')
        want = sizes(source)
        self.assertGreater(len(want), 2)
        self.assertEqual(sizes(mp4), want)
        late = sizes(source, 2 / 25)
        self.assertEqual(sizes(mkv), late)
        self.assertLess(len(late), len(want))

    def test_psnr_against_the_clip(self):
        clip = os.path.join(MEDIA, 'h264.mp4')
        self.ok('encode', clip, '-o', 'a.latent')
        said = [e for e in self.events('render', 'a.latent', '-o', 'a.png', '--frames', '2:3', '--like', clip, '--psnr', '--precision', 'f32') if e['event'] == 'quality']
        self.assertEqual([e['against'] for e in said], [clip, 'f32'])
        self.ok('render', 'a.latent', '-o', 'all.npy')
        frame = [e for e in self.events('compare', 'all.npy', clip, '--frames', '2:3') if e['event'] == 'frame'][0]
        self.assertAlmostEqual(said[0]['psnr'], frame['psnr'], delta=0.05)
        self.assertEqual((said[0]['frames'], said[0]['worst_frame'], said[1]['equal']), (1, 2, True))
        text = self.ok('render', self.latent('other.latent'), '-o', 'b.png', '--frames', ':1', '--like', clip, '--psnr').stderr.decode()
        self.assertIn('not compared with %s: it is 64x48, the render 48x32' % clip, text)

    def test_psnr_against_f32(self):
        z = self.latent(frames=3)
        for precision, least in (('fp16', 40), ('int8', 15)):
            said = [e for e in self.events('render', z, '-o', 'a.mp4', '-y', '--psnr', '--precision', precision) if e['event'] == 'quality']
            self.assertEqual((len(said), said[0]['against'], said[0]['frames']), (1, 'f32', 9))
            if not said[0]['equal']:
                self.assertGreater(said[0]['psnr'], least)
                self.assertLess(said[0]['psnr'], 120)


class Compare(Back):
    def test_numbers(self):
        self.clip('a.npy', seed=1)
        with open(self.path('a.npy'), 'rb') as f:
            v = list(struct.unpack('<%df' % (3 * 5 * 32 * 48), f.read()[128:]))
        for c in range(3):  # one block of frame 3
            for y in range(16, 32):
                for x in range(32, 48):
                    v[((c * 5 + 3) * 32 + y) * 48 + x] += 0.125
        write_npy(self.path('b.npy'), (3, 5, 32, 48), v)
        frames = self.events('compare', 'a.npy', 'b.npy', '-o', 'd.png')
        c = frames[-1]
        self.assertEqual([e['event'] for e in frames], ['frame'] * 5 + ['compare'])
        self.assertEqual((c['worst_frame']['frame'], c['worst_block']['at'], c['worst_block']['frame'], c['equal']), (3, [32, 16], 3, False))
        self.assertAlmostEqual(c['worst_block']['psnr'], 24.0824, places=3)
        self.assertAlmostEqual(c['largest'], 0.125, places=5)
        with open(self.path('d.png'), 'rb') as f:
            self.assertEqual(f.read(24)[16:], struct.pack('>II', 48, 32))
        text = self.ok('compare', 'a.npy', 'b.npy', '-v').stdout.decode()
        for word in ('5 frames of 48x32', 'worst frame   3: ', '16x16 at 32,16: 24.08 dB', 'frame     4       equal'):
            self.assertIn(word, text)
        self.assertEqual(self.events('compare', 'a.npy', 'b.npy', '--frames', ':3')[-1]['equal'], True)
        self.fails(1, 'compare', 'a.npy', 'b.npy', '-o', 'd.png', word='d.png')
        self.ok('compare', 'a.npy', 'b.npy', '-o', 'd.png', '-y')

    def test_refusals(self):
        self.clip('a.npy')
        self.clip('b.npy', width=40)
        self.clip('c.npy', frames=4)
        self.fails(2, 'compare', 'a.npy', word='A B')
        self.fails(2, 'compare', 'a.npy', 'b.npy', word='48x32')
        self.fails(2, 'compare', 'a.npy', 'c.npy', word='c.npy has 4 frames')
        self.fails(1, 'compare', 'a.npy', 'gone.png', word='gone.png')

    def test_a_closed_output_is_an_error(self):
        self.clip('a.npy')
        r = self.run_tessera('compare', 'a.npy', 'a.npy')
        self.assertEqual(r.returncode, 0)
        with open('/dev/full', 'w') as full:
            r = subprocess.run([TESSERA, 'compare', 'a.npy', 'a.npy'], cwd=self.folder, stdout=full, stderr=subprocess.PIPE)
        self.assertEqual(r.returncode, 1)


class Convert(Back):
    def test_types(self):
        psnr = {}
        for kind in ('f32', 'f16', 'q8_0', 'q4_0'):
            events = self.events('convert', MODEL, '-o', kind + '.gguf', '--type', kind)
            done = events[-1]
            self.assertEqual(done['output'], kind + '.gguf')
            self.assertEqual(sum(e['bytes'] for e in events if e['event'] == 'type'), done['bytes'])
            psnr[kind] = done['psnr']
            self.assertEqual(done['exact'], kind in ('f32', 'f16'))
        self.assertEqual((psnr['f32'], psnr['f16']), (None, None))  # equal: no number
        self.assertGreater(psnr['q8_0'], psnr['q4_0'] + 10)
        text = self.ok('convert', MODEL, '-o', 'x.safetensors', '--type', 'bf16').stdout.decode()
        self.assertRegex(text, r'(?m)^BF16 +\d+ ')
        self.assertIn('x.safetensors', text)
        z = self.latent()
        self.ok('render', z, '-m', 'q8_0.gguf', '-o', 'x.png', '--frames', ':1')
        self.assertIn('Q8_0', self.ok('inspect', 'q8_0.gguf').stdout.decode())

    def test_refusals(self):
        self.fails(2, 'convert', MODEL, word='-o')
        self.fails(2, 'convert', MODEL, '-o', 'x.bin', word='x.bin')
        self.fails(2, 'convert', MODEL, '-o', 'x.safetensors', '--type', 'q8_0', word='Q8_0')
        self.fails(1, 'convert', 'gone.gguf', '-o', 'x.gguf', word='gone.gguf')


if __name__ == '__main__':
    test_cli.main(sys.modules[__name__])
