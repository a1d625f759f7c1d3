#!/usr/bin/env python3
"""The command line's contract, from outside: statuses, lines, files, JSON. Prints TAP.

    test_cli.py TESSERA SYNTHETIC_MODEL [NAME...]
"""
import json
import math
import os
import pty
import random
import re
import resource
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

TESSERA = os.path.abspath(sys.argv[1])
ASSETS = os.environ['TSR_ASSETS']
DEMO = os.path.join(ASSETS, 'demo-vae.safetensors')
SHARED = tempfile.TemporaryDirectory(prefix='tessera-cli-')
MODEL = os.path.join(SHARED.name, 'small.safetensors')
SPHERES = os.path.join(ASSETS, 'spheres.latent')
# Sanitizers make arithmetic ten times as slow: what only compares numbers runs as shipped.
as_shipped = unittest.skipIf(os.environ.get('TSR_SANITIZED'), 'numbers only, not under a sanitizer')
fails_allocations = unittest.skipUnless(os.environ.get('TSR_PRELOAD'), 'nothing to preload, so no allocation fails')
COMMANDS = ['render', 'view', 'encode', 'tune', 'plan', 'bench', 'info', 'inspect', 'compare', 'convert']


def write_latent(path, frames, height, width, batch=1, seed=1, loud=0.5, smooth=False, **meta):
    """Noise, as ComfyUI writes latents: what it decodes to does not matter. Or smooth, so that tiles do not lack much."""
    rng = random.Random(seed)
    count = batch * 16 * frames * height * width
    if smooth:
        values = (math.sin(c + t + 2 * y / height + 3 * x / width) for c in range(16 * batch) for t in range(frames)
                  for y in range(height) for x in range(width))
    else:
        values = (rng.uniform(-loud, loud) for _ in range(count))
    data = struct.pack('<%df' % count, *values)
    header = {'latent_tensor': {'dtype': 'F32', 'shape': [batch, 16, frames, height, width], 'data_offsets': [0, len(data)]},
              'latent_format_version_0': {'dtype': 'F32', 'shape': [0], 'data_offsets': [len(data), len(data)]}}
    if meta:
        header['__metadata__'] = {'tessera.' + k: str(v) for k, v in meta.items()}
    text = json.dumps(header).encode()
    with open(path, 'wb') as f:
        f.write(struct.pack('<Q', len(text)) + text + data)


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix='tessera-cli-')
        # No cache folder: what was measured on this machine decides nothing here.
        self.env = dict(os.environ, TESSERA_MODEL=MODEL, XDG_CACHE_HOME='/dev/null',
            MESA_SHADER_CACHE_DISABLE='true') # Mesa says a line where it cannot keep shaders

    def tearDown(self):
        shutil.rmtree(self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def latent(self, name='a.latent', frames=2, height=4, width=6, **more):
        write_latent(self.path(name), frames, height, width, **more)
        return self.path(name)

    def run_tessera(self, *args, **more):
        more.setdefault('env', self.env)
        more.setdefault('cwd', self.folder)
        return subprocess.run([TESSERA, *args], stdin=subprocess.DEVNULL, capture_output=True, timeout=1800, **more)

    def ok(self, *args, **more):
        r = self.run_tessera(*args, **more)
        self.assertEqual(r.returncode, 0, '%s: %s' % (args, r.stderr.decode()))
        return r

    def events(self, *args):
        return [json.loads(line) for line in self.ok(*args, '--json').stdout.decode().splitlines()]

    def fails(self, status, *args, word='', **more):
        """One line on standard error, nothing on standard output, nothing new in the folder."""
        before = sorted(os.listdir(self.folder))
        r = self.run_tessera(*args, **more)
        err = r.stderr.decode()
        self.assertEqual(r.returncode, status, '%s: %s' % (args, err))
        lines = [line for line in err.splitlines() if line.startswith('tessera: ')]
        self.assertEqual(len(lines), 1, '%s: %r' % (args, err))
        self.assertEqual(err.splitlines()[-1], lines[0], '%s: %r' % (args, err))
        self.assertIn(word, err)
        if '--json' not in args:
            self.assertEqual(r.stdout, b'', args)
        self.assertEqual(sorted(os.listdir(self.folder)), before, args)
        return err

    def files(self):
        return sorted(os.listdir(self.folder))


def options_of(command):
    text = subprocess.run([TESSERA, command, '--help'], capture_output=True, text=True).stdout
    return re.findall(r'^  (?:-(\w), |    )--([\w-]+)(?: (\S+))?', text, re.M)


# Every option with a value: what must be refused, what must be understood.
VALUES = {
    'output': ([''], ['x.png']),
    'format': (['', 'avi', 'PNG', 'auto', 'mp4|mkv'], ['png', 'null']),
    'frames': (['', ':', '5', '5:5', '5:4', '-1:4', 'a:b', '1:2:3', '1:0', ':0', '99999999999:', '1.5:3'], ['0:5', ':1', '0:']),
    'fps': (['', '0', '-1', 'nan', 'inf', '24fps', '1/0', '24/', '/1', '1e9', '0x10'], ['24', '23.976', '30000/1001', '12.5']),
    'codec': ([''], ['libx264']),
    'crf': (['', '-1', '64', 'x', '1.5', '1 '], ['0', '63']),
    'depth': (['', '9', '12', '8bit', '-8'], ['8', '10', '16']),
    'dither': (['', 'no', 'on'], ['auto', 'none']),
    'model': ([''], [MODEL]),
    'latent-scale': (['', '0', '-1', 'x', 'inf', '1,5'], ['model', 'none', '0.9152', '1']),
    'layout': (['', 'bcfh', 'BCFHW', 'bcfhw|bfhwc'], ['auto', 'bcfhw', 'bfhwc']),
    'device': (['', 'gpu', 'cuda:', 'cuda:x', 'cuda:-1', 'cuda:1000', 'cpu:0', 'cudax'], ['auto', 'cpu', 'cuda', 'cuda:1']),
    'vulkan': (['', 'none', '-1', '256', '1.5'], ['auto', '0']),
    'threads': (['', '0', '-2', 'all', '99999'], ['1']),
    'precision': (['', 'fp32', 'half', 'f3', 'f32|fp16'], ['auto', 'f32', 'fp16', 'bf16', 'fp8', 'int8']),
    'quality': (['', '19', '101', 'x', '45dB', 'nan', 'inf', '-45'], ['45', '47.5']),
    'vram': (['', '0', '-1G', 'G', '13GB', '13 G', '0%', '101%', '5%%', 'inf', 'lots', '1e99T'], ['13G', '800m', '80%', 'auto', '1.5G', '1000000']),
    'tile': (['', '0', '7', '64x', 'x64', '64x64x64', '-64', '6.4', '64X64', '99999999999', '64x7'], ['auto', 'none', '64', '64x128', '100']),
    'overlap': (['', '-1', '8x', 'none', '1x2x3'], ['auto', '0', '16', '16x32']),
    'caches': (['', 'disk', 'Host'], ['auto', 'device', 'host']),
    'repeat': (['', '0', '-1', 'x', '1001'], ['1']),
    'like': ([''], ['nofile.mp4']),
    'batch-overlap': (['', '-1', 'x', '1.5'], ['0', '2']),
    'sample': (['', 'x', '-1', '1.5'], ['0', '7']),
    'type': (['', 'q8', 'F16', 'f16|bf16'], ['f16', 'q8_0']),
    'block': (['', '0', '-1', 'x', '4097'], ['8', '16']),
    'trace': ([''], ['t.json']),
    'geometry': ([''], ['640x400']),
    'offscreen': ([''], ['o.png']),
    'scale': (['', '0', '-1', 'x'], ['1.5']),
    'script': ([''], ['-']),
    'progress': (['', 'yes'], ['auto', 'always', 'never']),
}


class CommandLine(Case):
    def test_help(self):
        r = self.ok('--help')
        self.assertEqual(r.stderr, b'')
        for name in COMMANDS:
            self.assertRegex(r.stdout.decode(), r'(?m)^  %s ' % name)
            text = self.ok(name, '--help')
            self.assertEqual(text.stderr, b'')
            self.assertTrue(text.stdout.decode().startswith('Usage: tessera %s' % name))
        for name in COMMANDS:
            self.assertIn('help', [o[1] for o in options_of(name)])
            self.assertEqual(self.ok(name, '-h').stdout, self.ok(name, 'nonsense', '--help').stdout)
        for line in r.stdout.decode().splitlines():
            self.assertLessEqual(len(line), 110)
        self.assertRegex(self.ok('--version').stdout.decode(), r'^tessera \d+\.\d+\.\d+\n$')

    def test_defaults_are_shown(self):
        text = self.ok('render', '--help').stdout.decode()
        for default in ['[auto]', '[24]', '[8]', '[model]', '[all]', 'less', '$TESSERA_MODEL']:
            self.assertIn(default, text)

    def test_wrong_command_lines(self):
        self.fails(2, word='--help')
        self.fails(2, 'rendr', word='rendr')
        self.fails(2, '--wat', word='--wat')
        self.fails(2, '--generate', 'pdf')
        self.fails(2, 'render', word='LATENT')
        self.fails(2, 'render', 'a.latent', word='-o')
        self.fails(2, 'render', 'a.latent', '--outptu', 'x.png', word='--outptu')
        self.fails(2, 'render', 'a', 'b', '-o', 'x.png', '--trace', 't.json', word='--trace')
        self.fails(2, 'render', 'a.latent', '-Z', word='-Z')
        self.fails(2, 'render', 'a.latent', '-yZ', word='-Z')
        self.fails(2, 'render', 'a.latent', '-o', word='--output')
        self.fails(2, 'render', 'a.latent', '--overwrite=yes', word='--overwrite')
        self.fails(2, 'render', 'a.latent', '-qv', '-o', 'x.png', word='-q')
        self.fails(2, 'plan', word='LATENT')
        self.fails(2, 'plan', 'a', 'b', word='b')
        self.fails(2, 'plan', 'a', '--crf', '3', word='plan has no --crf')
        self.fails(2, 'plan', '64x64', word='64x64')
        self.fails(2, 'plan', '0x64x5')
        self.fails(2, 'info', 'x', word='x')
        self.fails(2, 'inspect', word='FILE')
        self.fails(2, 'bench', '64x64x0')

    def test_every_option_refuses_bad_values(self):
        seen = set()
        for command in COMMANDS:
            for letter, name, values in options_of(command):
                if not values or name in seen:
                    continue
                seen.add(name)
                self.assertIn(name, VALUES, 'an option without a test')
                for bad in VALUES[name][0]:
                    err = self.fails(2, command, 'nofile', '--%s=%s' % (name, bad), word='--' + name)
                    self.assertIn('give ' + values, err)
                    self.assertEqual(err.count('\n'), 1, err)
                    if letter and bad:
                        self.fails(2, command, 'nofile', '-' + letter, bad, word='--' + name)
        self.assertEqual(seen, set(VALUES), 'a test without an option')

    def test_every_option_takes_good_values(self):
        for command in COMMANDS:
            for letter, name, values in options_of(command):
                for good in VALUES[name][1] if values else []:
                    if command == 'render':
                        base = ['render', 'nofile', '-o', 'y.npy'] if name != 'output' else ['render', 'nofile']
                        self.fails(1, *base, '--%s=%s' % (name, good), word='nofile')
                        if letter:
                            self.fails(1, *base, '-' + letter + good, word='nofile')

    def test_forms(self):
        for args in (['-o', 'x.png', 'nofile'], ['nofile', '-ox.png'], ['--output=x.png', '--', 'nofile'], ['-yo', 'x.png', 'nofile'],
                     ['--frames', ':1', 'nofile', '--output', 'x.png'], ['-q', '-ox.png', 'nofile']):
            self.fails(1, 'render', *args, word='nofile')
        self.fails(1, 'render', '-o', 'x.png', '--', '-nofile', word='-nofile')

    def test_tune(self):
        self.env['XDG_CACHE_HOME'] = self.path('cache')
        events = [json.loads(line) for line in self.ok('tune', '160x96x5', '--json', '-o', 'chart.png').stdout.decode().splitlines()]
        points = [e for e in events if e['event'] == 'candidate']
        self.assertEqual(points[0]['mode'], 'untiled')
        self.assertGreater(len(points), 3)
        self.assertTrue(any(p['runs'] and p['seconds'] > 0 and p['peak_bytes'] > 0 for p in points))
        kept = events[-1]['kept']
        self.assertIn(kept, [p['tile'] for p in points if p['runs'] and p['mode'] == 'tiled'])
        with open(self.path('chart.png'), 'rb') as f:
            self.assertEqual(f.read(8), b'\x89PNG\r\n\x1a\n')
        budget = str(points[0]['planned_bytes'] * 9 // 10)
        plan = json.loads(self.ok('plan', '160x96x5', '--vram', budget, '--caches', 'device', '--json').stdout.decode().splitlines()[-1])
        if plan['tile'] == kept:  # it fits
            self.assertIn('tune', plan['why'])
        self.assertIn(b'best: ', self.ok('tune', '64x64x1', '-q').stdout)
        self.fails(2, 'tune', '64x64x1', '-o', 'chart.mp4', word='.png')
        self.fails(1, 'tune', '64x64x1', '-o', 'nowhere/chart.png', word='nowhere')
        self.fails(1, 'tune', '64x64x1', '-o', 'chart.png', word='chart.png')
        self.fails(1, 'tune', '640x480x1', '--vram', '100K', word='budget')

    def test_missing_and_bad_files(self):
        for name in ('nowhere/a.latent', 'nofile'):
            self.fails(1, 'render', name, '-o', 'x.mp4', word=name)
            self.fails(1, 'inspect', name, word=name)
        with open(self.path('rubbish'), 'w') as f:
            f.write('rubbish' * 100)
        self.fails(1, 'render', 'rubbish', '-o', 'x.mp4', word='rubbish')
        self.fails(1, 'plan', 'rubbish', word='rubbish')
        self.fails(1, 'inspect', 'rubbish', word='rubbish')
        self.fails(1, 'plan', 'nofile.latent', word='nofile.latent')
        self.fails(1, 'plan', '64x64x5', '-m', 'rubbish', word='rubbish')
        self.fails(1, 'render', self.latent(), '-o', 'x.mp4', '-m', 'nomodel', word='nomodel')
        self.fails(1, 'render', MODEL, '-o', 'x.mp4', word='small.safetensors')
        self.fails(1, 'render', 'a.latent', '-o', 'x.mp4', '-m', 'a.latent', word='a.latent')

    def test_errors_are_one_line_whatever_a_name_holds(self):
        self.fails(1, 'render', 'a\nb\033[31m', '-o', 'x.mp4', word='a?b?[31m')
        self.fails(2, 'render', 'a', '-o', 'x.mp4', '--fps', '1\n2', word='1?2')

    def test_errors_as_json(self):
        r = self.run_tessera('render', 'no\tfile\xff"\\', '-o', 'x.mp4', '--json')
        self.assertEqual(r.returncode, 1)
        events = [json.loads(line) for line in r.stdout.decode().splitlines()]
        self.assertEqual(events[-1]['event'], 'error')
        self.assertIn('no?file', events[-1]['message'])
        self.assertIn(events[-1]['message'], r.stderr.decode())
        odd = os.fsdecode(b'odd\xff\xc3\xa9')
        r = self.run_tessera('render', odd, '-o', 'x.mp4', '--json')
        self.assertIn('odd\ufffd\u00e9', json.loads(r.stdout.decode().splitlines()[-1])['message'])
        self.fails(2, 'render', 'a', '-o', '-', '--format', 'y4m', '--json', word='--json')

    def test_output_that_cannot_be(self):
        z = self.latent()
        self.fails(1, 'render', z, '-o', 'nowhere/a.mp4', word='nowhere')
        self.fails(1, 'render', z, '-o', '.', '--format', 'mp4', word='folder')
        self.fails(2, 'render', z, '-o', 'a.avi', word='a.avi')
        self.fails(2, 'render', z, '-o', 'a', word='suffix')
        self.fails(2, 'render', z, '-o', '-', word='format')
        self.fails(2, 'render', z, '-o', 'a.png', word='%05d')
        self.fails(2, 'render', z, '-o', 'a%x.png', word='%05d')
        self.fails(2, 'render', z, '-o', 'a.mp4', '--codec', 'nonesuch', word='nonesuch')
        self.fails(2, 'render', z, '-o', 'a.png', '--depth', '10', '--frames', ':1', word='depth')
        self.fails(2, 'render', z, '-o', 'a.mp4', '--depth', '16', word='depth')
        self.fails(2, 'render', z, '-o', 'a.mp4', '--frames', '5:', word='--frames')

    def test_an_existing_output_is_refused(self):
        z = self.latent()
        for name in ('a.mp4', 'b00003.png'):
            with open(self.path(name), 'w') as f:
                f.write('precious')
            out = 'b%05d.png' if name.startswith('b') else name
            self.fails(1, 'render', z, '-o', out, word=name)
            with open(self.path(name)) as f:
                self.assertEqual(f.read(), 'precious')

    def test_a_full_disk_behind_text(self):
        with open('/dev/full', 'w') as full:
            r = subprocess.run([TESSERA, '--help'], stdout=full, stderr=subprocess.PIPE)
        self.assertEqual(r.returncode, 1)
        self.assertIn(b'standard output', r.stderr)


class Models(Case):
    """Which model, and that it says which."""

    def which(self, *args):
        r = self.run_tessera('plan', '32x32x1', *args)
        return r.stderr.decode()

    def test_the_demo_model(self):
        del self.env['TESSERA_MODEL']
        self.assertIn('demo-vae.safetensors (the demo model', self.which())

    def test_from_the_environment(self):
        os.mkdir(self.path('models'))
        os.symlink(MODEL, self.path('models/b.safetensors'))
        self.assertIn('$TESSERA_MODEL', self.which())
        self.env['TESSERA_MODEL'] = ''
        self.assertIn('models/b.safetensors (the only VAE in ./models)', self.which())
        os.symlink(MODEL, self.path('models/c.bin'))
        self.assertRegex(self.which(), r'several VAEs: models .*models/b\.safetensors.*models/c\.bin.*-m')
        self.fails(1, 'plan', '32x32x1', word='several VAEs')

    def test_folders(self):
        os.makedirs(self.path('all/vae'))
        self.fails(1, 'plan', '32x32x1', '-m', 'all', word='no VAE: all')
        with open(self.path('all/readme.safetensors'), 'w') as f:
            f.write('no model')
        os.symlink(MODEL, self.path('all/vae/x.gguf'))
        self.assertIn('all/vae/x.gguf (the only VAE there)', self.which('-m', 'all'))


def probe(path):
    """What ffprobe says of the only stream, its frames counted by decoding them."""
    r = subprocess.run(['ffprobe', '-v', 'error', '-count_frames', '-show_streams', '-of', 'json', path], capture_output=True)
    streams = json.loads(r.stdout)['streams']
    return dict(streams[0], streams=len(streams), errors=r.stderr.decode())


class Render(Case):
    """Decodes for real: 5 frames of 48x32 (frames=2, height=4, width=6) where nothing else is said."""

    def test_what_auto_leaves_alone(self):
        """Where 8 bits are faster, a render says in a line what would let auto use them, as a plan does."""
        self.env['TESSERA_MODEL'] = DEMO  # with channels that 8 bits take
        z = self.latent(frames=1)
        planned = [line.split(maxsplit=1)[1] for line in self.ok('plan', z).stdout.decode().splitlines() if '--quality' in line]
        rendered = self.ok('render', z, '-o', 'a.png').stderr.decode().splitlines()
        self.assertEqual([line for line in rendered if '--quality' in line], planned)
        self.assertNotIn('--quality', self.ok('render', z, '-o', 'b.png', '--precision', 'f32').stderr.decode())

    def test_every_format(self):
        z = self.latent()
        size = 48 * 32 * 3
        for name, more, want in (('a.mp4', [], ('h264', 'yuv420p')), ('a.mkv', ['--depth', '10'], ('h264', 'yuv420p10le')),
                                 ('a.webm', ['--fps', '12.5'], ('vp9', 'yuv420p')), ('a.y4m', ['--fps', '30000/1001'], ('rawvideo', 'yuv420p')),
                                 ('b.mp4', ['--codec', 'libx265', '--crf', '30'], ('hevc', 'yuv420p'))):
            r = self.ok('render', z, '-o', name, *more)
            self.assertEqual(r.stdout, b'')
            if not shutil.which('ffprobe'):
                continue
            p = probe(self.path(name))
            self.assertEqual((p['streams'], p['errors'], p['codec_name'], p['pix_fmt']), (1, '', *want))
            self.assertEqual((p['width'], p['height'], p['nb_read_frames']), (48, 32, '5'), name)
            self.assertEqual(p['avg_frame_rate'], {'a.webm': '25/2', 'a.y4m': '30000/1001'}.get(name, '24/1'))
            self.assertEqual(p['color_range'], 'tv')
            if name != 'a.y4m':
                self.assertEqual({p[k] for k in ('color_space', 'color_primaries', 'color_transfer')}, {'bt709'})
            if name in ('a.mp4', 'a.webm') and shutil.which('mpv'):
                r = subprocess.run(['mpv', '--no-config', '--vo=null', '--ao=null', '--frames=1', '-v', self.path(name)], capture_output=True, text=True)
                self.assertRegex(r.stdout, r'\[in\] 48x32 yuv420p bt\.709/bt\.709/[^/]*/limited')
        for name in ('raw.rgb24', 'raw.rgb48'):
            self.ok('render', z, '-o', name, '--format', name[4:])
            self.assertEqual(os.path.getsize(self.path(name)), 5 * size * (1 if name.endswith('24') else 2))
        self.ok('render', z, '-o', 'a.npy')
        self.ok('render', z, '-o', 'a.safetensors')
        self.assertEqual(os.path.getsize(self.path('a.npy')) % 64, 5 * size * 4 % 64)
        with open(self.path('a.npy'), 'rb') as f, open(self.path('a.safetensors'), 'rb') as g:
            self.assertEqual(f.read()[-5 * size * 4:], g.read()[-5 * size * 4:])
        self.ok('render', z, '-o', 'p%03d.png', '--frames', '1:4')
        self.ok('render', z, '-o', 'one.PNG', '--frames', '2:3', '--depth', '16')
        self.ok('render', z, '--format', 'null')
        self.assertEqual(self.files(), sorted(['a.latent', 'a.mkv', 'a.mp4', 'a.npy', 'a.safetensors', 'a.webm', 'a.y4m', 'b.mp4', 'one.PNG',
                                               'p001.png', 'p002.png', 'p003.png', 'raw.rgb24', 'raw.rgb48']))

    @as_shipped
    def test_encoders_keep_to_their_memory(self):
        """libx265 does not by itself, with pictures as narrow as these; the C library's allocator for debugging sees it."""
        z, env = self.latent(), dict(self.env, LD_PRELOAD='libc_malloc_debug.so.0', MALLOC_CHECK_='3')
        for name, codec in (('a.mp4', 'libx264'), ('b.mp4', 'libx265'), ('c.webm', 'libvpx-vp9')):
            self.ok('render', z, '-o', name, '--codec', codec, env=env)

    def raw(self, *args, cwd=None):
        return self.ok('render', *args, '-o', '-', '--format', 'rgb48').stdout

    def test_frames_are_a_part_of_the_whole(self):
        z = self.latent(frames=4)
        whole, size = self.raw(z), 48 * 32 * 6
        self.assertEqual(len(whole), 13 * size)
        for text, a, b in (('3:7', 3, 7), (':2', 0, 2), ('12:', 12, 13), ('5:99', 5, 13)):
            self.assertEqual(self.raw(z, '--frames', text), whole[a * size:b * size], text)

    def test_several_latents_and_batches_make_one_video(self):
        a, b = self.latent('a.latent', seed=1), self.latent('b.latent', frames=1, seed=2)
        both = self.latent('both.latent', frames=1, batch=2, seed=3)
        size = 48 * 32 * 6
        one, two, batch = self.raw(a), self.raw(b), self.raw(both)
        self.assertEqual([len(x) // size for x in (one, two, batch)], [5, 1, 2])
        self.assertNotEqual(batch[:size], batch[size:])
        self.assertEqual(self.raw(a, b, both), one + two + batch)
        self.assertEqual(self.raw(a, b, both, '--frames', '4:7'), (one + two + batch)[4 * size:7 * size])
        self.assertEqual(self.raw(a, b, both, '--frames', '6:7'), batch[:size])
        self.fails(1, 'render', a, self.latent('c.latent', width=8), '-o', 'x.mp4', word='c.latent')

    def test_what_encode_padded_is_cropped(self):
        plain = self.latent('plain.latent', seed=5)
        cut = self.latent('cut.latent', seed=5, crop_width=45, crop_height=29, crop_frames=3)
        whole = self.raw(plain)
        want = b''.join(whole[((f * 32 + y) * 48) * 6:((f * 32 + y) * 48 + 45) * 6] for f in range(3) for y in range(29))
        self.assertEqual(self.raw(cut), want)
        self.ok('render', plain, '-o', 'plain.npy', '--frames', ':1')
        self.ok('render', cut, '-o', 'cut.npy', '--frames', ':1')
        with open(self.path('plain.npy'), 'rb') as f, open(self.path('cut.npy'), 'rb') as g:
            whole, got = f.read()[-3 * 48 * 32 * 4:], g.read()[-3 * 45 * 29 * 4:]
        self.assertEqual(got, b''.join(whole[((c * 32 + y) * 48) * 4:((c * 32 + y) * 48 + 45) * 4] for c in range(3) for y in range(29)))
        if shutil.which('ffprobe'):
            self.ok('render', cut, '-o', 'cut.mp4')
            p = probe(self.path('cut.mp4'))
            self.assertEqual((p['width'], p['height'], p['nb_read_frames'], p['pix_fmt']), (45, 29, '3', 'yuv444p'))

    def test_dither(self):
        z = self.latent()
        dithered, plain = (self.ok('render', z, '-o', '-', '--format', 'rgb24', '--dither', d).stdout for d in ('auto', 'none'))
        self.assertNotEqual(dithered, plain)
        self.assertLessEqual(max(abs(a - b) for a, b in zip(dithered, plain)), 1)

    def test_numbers_out_of_range_are_told_and_decoded_again(self):
        z = self.latent(loud=1e7)
        r = self.ok('render', z, '-o', 'a.npy', '--precision', 'fp16', '--json')
        warnings = [e for e in map(json.loads, r.stdout.decode().splitlines()) if e['event'] == 'warning']
        self.assertEqual(len(warnings), 1, r.stdout)
        self.assertRegex(warnings[0]['message'], r'^frame 0, tile 1 of 1: \d+ numbers are not finite in fp16; .* in f32')
        self.assertEqual(r.stderr.decode(), 'tessera: warning: %s\n' % warnings[0]['message'])
        self.ok('render', z, '-o', 'b.npy', '--precision', 'f32')
        with open(self.path('a.npy'), 'rb') as a, open(self.path('b.npy'), 'rb') as b:
            self.assertEqual(a.read(), b.read())

    def test_a_clip_out_of_range_is_encoded_again(self):
        loud, name = self.path('loud.safetensors'), 'encoder.conv_in.weight'
        with open(MODEL, 'rb') as f:
            data = bytearray(f.read())
        begin = 8 + struct.unpack('<Q', data[:8])[0]
        at, end = (begin + x for x in json.loads(data[8:begin])[name]['data_offsets'])
        weights = struct.unpack('<%de' % ((end - at) // 2), data[at:end])
        data[at:end] = struct.pack('<%de' % len(weights), *(w * 60000 / max(map(abs, weights)) for w in weights))
        with open(loud, 'wb') as f:
            f.write(data)
        self.ok('render', self.latent(frames=1), '-o', 'clip.png')
        args = 'encode', 'clip.png', '-m', loud
        r = self.ok(*args, '-o', 'again.latent', '--precision', 'fp16', '--json')
        warnings = [e['message'] for e in map(json.loads, r.stdout.decode().splitlines()) if e['event'] == 'warning']
        self.assertEqual(warnings,
            ['encode: latent frame 0 is not finite at channel 0 in fp16; all is encoded again in f32'])
        self.ok(*args, '-o', 'f32.latent', '--precision', 'f32')
        with open(self.path('again.latent'), 'rb') as a, open(self.path('f32.latent'), 'rb') as b:
            self.assertEqual(a.read(), b.read())

    def test_json(self):
        z = self.latent(frames=3)
        r = self.ok('render', z, '-o', 'x.mp4', '--json', '--precision', 'f32')
        events = [json.loads(line) for line in r.stdout.decode().splitlines()]
        kinds = [e['event'] for e in events]
        self.assertEqual([kinds[0], kinds[1], kinds[-1]], ['model', 'plan', 'done'])
        self.assertEqual(set(kinds[2:-1]), {'progress'})
        plan, done = events[1], events[-1]
        self.assertLessEqual({'mode', 'tile', 'overlap', 'tiles', 'precision', 'device', 'bytes', 'budget', 'why'}, set(plan))
        self.assertLessEqual({'weights', 'arena', 'caches', 'slots', 'frames', 'total'}, set(plan['bytes']))
        self.assertEqual((plan['mode'], plan['precision'], plan['tiles'], plan['tile']), ('untiled', 'f32', 1, [48, 32]))
        self.assertEqual([e['frames'] for e in events[2:-1]], sorted({e['frames'] for e in events[2:-1]}))
        self.assertEqual({e['of'] for e in events[2:-1]}, {9})
        self.assertEqual((done['frames'], done['output']), (9, 'x.mp4'))
        self.assertEqual(set(done['phases']), {'load', 'prepare', 'decode', 'blend', 'write'})
        self.assertEqual(done['planned_bytes'], plan['bytes']['total'])
        self.assertEqual(done['peak_bytes'], done['planned_bytes'])
        self.assertGreater(done['seconds'], 0)
        self.assertNotIn(b'model:', r.stderr)

    def test_talking(self):
        z = self.latent()
        self.assertEqual(self.ok('render', z, '-o', 'a.mp4', '-q').stderr, b'')
        normal = self.ok('render', z, '-o', 'b.mp4').stderr.decode()
        self.assertRegex(normal, r'(?m)^plan: untiled, ')
        self.assertRegex(normal, r'(?m)^b\.mp4: 5 frames of 48x32 in ')
        self.assertNotIn('ETA', normal)
        self.assertGreater(len(self.ok('render', z, '-o', 'c.mp4', '-v').stderr), len(normal))
        self.assertIn('5/5 frames', self.ok('render', z, '-o', 'd.mp4', '--progress', 'always').stderr.decode())
        self.assertRegex(self.ok('render', z, '-o', 'e.mp4', '--tile', '25', '--overlap', '9').stderr.decode(), r'tile: 25x25 asked for, 24x24 used')

    def test_trace(self):
        self.ok('render', self.latent(), '--format', 'null', '--trace', 't.json')
        with open(self.path('t.json')) as f:
            json.load(f)

    @as_shipped
    def test_spheres(self):
        """The demo itself, in the numbers `./run` takes; what it looks like is its source's business: same picture to 25 dB."""
        self.ok('render', SPHERES, '-m', DEMO, '-o', 's.mkv', '--frames', '0:5', '--codec', 'ffv1', '--precision', 'int8')
        if not shutil.which('ffmpeg'):
            self.skipTest('no ffmpeg')
        r = subprocess.run(['ffmpeg', '-hide_banner', '-i', self.path('s.mkv'), '-i', os.path.join(ASSETS, 'spheres-source.mp4'),
                            '-lavfi', 'psnr', '-frames:v', '5', '-f', 'null', '-'], capture_output=True, text=True)
        psnr = float(re.search(r'average:([\d.]+)', r.stderr).group(1))
        self.assertGreater(psnr, 25)


class Budgets(Case):
    """Modes as the budget falls. Which of two that fit is taken hangs on how fast this machine is, so that is not asked."""

    def setUp(self):
        super().setUp()
        self.env['XDG_CACHE_HOME'] = self.path('cache')  # measured once, for the first of them

    def render(self, z, name, *args):
        """The plan, which was kept to the byte."""
        events = self.events('render', z, '-o', name, '--precision', 'f32', *args)
        plan, done = [e for e in events if e['event'] == 'plan'][0], events[-1]
        self.assertLessEqual(plan['bytes']['total'], plan['budget'])
        self.assertEqual(done['peak_bytes'], plan['bytes']['total'])
        self.assertEqual(done['host_peak_bytes'], done['host_planned_bytes'])
        return plan

    def against(self, whole, name):
        c = self.events('compare', whole, name)[-1]
        return 999 if c['equal'] else c['psnr']

    @as_shipped
    def test_the_budget_falls(self):
        long = bool(os.environ.get('TSR_TEST_LONG'))
        z = self.latent(frames=2, height=96 if long else 12, width=128 if long else 20, smooth=True)
        budgets = ['8G', '400M', '200M', '100M', '60M'] if long else ['8G', '20M', '13M', '8M']
        modes = []
        for i, budget in enumerate(budgets):
            plan = self.render(z, '%d.npy' % i, '--vram', budget)
            self.assertTrue(plan['why'])
            modes.append(plan['mode'])
            whole = '0.npy'
            if plan['mode'] == 'tiled':  # a random network sees far: tiles are held against the same tiles with room
                whole = 'roomy.npy'
                same = ['--tile', '%dx%d' % tuple(plan['tile']), '--overlap', '%dx%d' % tuple(plan['overlap'])]
                roomy = self.render(z, whole, '-y', '--vram', '8G', '--caches', 'device', *same)
                self.assertEqual((roomy['tile'], roomy['tiles']), (plan['tile'], plan['tiles']))
                self.assertGreater(self.against('0.npy', whole), 5)
            self.assertGreater(self.against(whole, '%d.npy' % i), 110, plan)
        self.assertEqual((modes[0], modes[-1]), ('untiled', 'tiled'), modes)
        self.assertGreater(len(set(modes)), 2, modes)
        err = self.fails(1, 'render', z, '-o', 'no.npy', '--precision', 'f32', '--vram', '1M', word='1.0 MiB')
        need = int(re.search(r'\((\d+) bytes\)', err).group(1))
        self.fails(1, 'render', z, '-o', 'no.npy', '--precision', 'f32', '--vram', str(need - 1), word='(%d bytes)' % need)
        self.assertEqual(self.events('plan', z, '--precision', 'f32', '--vram', str(need))[-1]['bytes']['total'], need)

    def test_exact(self):
        z = self.latent(frames=2, height=16, width=24)
        whole = self.render(z, 'whole.npy', '--exact', '--vram', '8G')
        self.assertEqual(whole['mode'], 'untiled')
        for i, args in enumerate((['--vram', '16M'], ['--tile', '16', '--vram', '8G'])):
            plan = self.render(z, '%d.npy' % i, '--exact', *args)
            self.assertEqual((plan['mode'], plan['tiles']), ('exact', 1))
            self.assertGreater(self.against('whole.npy', '%d.npy' % i), 110)
        for args in (['--tile', '40'], ['--overlap', '16'], ['--caches', 'device']):  # somebody wants tiles
            self.assertEqual(self.events('plan', z, '--precision', 'f32', '--vram', '16M', *args)[-1]['mode'], 'tiled', args)
        self.fails(1, 'render', z, '-o', 'no.npy', '--exact', '--vram', '1M', word='bands of')


@fails_allocations
class Shrink(Case):
    """Each allocation in turn finds no memory: a smaller plan goes on, and the pictures are those of a render with room."""

    def short(self, n, *args):
        env = dict(self.env, LD_PRELOAD=os.environ['TSR_PRELOAD'], TSR_FAIL_ALLOC=str(n))
        return self.run_tessera('render', *args, '--precision', 'f32', '--tile', 'none', '-y', env=env)

    def read(self, name):
        with open(self.path(name), 'rb') as f:
            return f.read()

    def every_allocation(self, *args):
        """The frames from which smaller plans went on."""
        self.ok('render', *args, '-o', 'roomy.npy', '--precision', 'f32', '--tile', 'none')
        frames = []
        for n in range(50):
            r = self.short(n, *args, '-o', 'short.npy', '--json')
            err, events = r.stderr.decode(), [json.loads(line) for line in r.stdout.decode().splitlines()]
            self.assertEqual(r.returncode, 0, err)
            self.assertEqual(self.read('short.npy'), self.read('roomy.npy'), n)
            at = [i for i, e in enumerate(events) if e['event'] == 'replan']
            self.assertEqual(len(at), err.count('going on from frame'), err)
            if not at:
                return frames
            self.assertEqual(len(at), 1, 'it failed once only')
            before, told, after = events[:at[0]], events[at[0]], events[at[0] + 1]
            self.assertIn('memory', told['why'])
            before = [e for e in before if e['event'] == 'plan'][-1]
            self.assertEqual(after['event'], 'plan')
            self.assertLess(after['bytes']['total'], before['bytes']['total'])
            frames.append(told['frame'])
        self.fail('there was no end of allocations')

    def test_one_video(self):
        z = self.latent(frames=3)
        self.assertEqual(set(self.every_allocation(z)), {0})
        err = self.short(0, z, '-o', 'line.npy').stderr.decode()  # for people
        self.assertRegex(err, r'going on from frame 0 with a plan of .*MiB')
        self.assertEqual(len(re.findall(r'(?m)^plan: ', err)), 2, err)

    def test_the_second_of_two_that_fade(self):
        a, b = self.latent(), self.latent('b.latent', seed=2)
        self.assertEqual(set(self.every_allocation(a, b, '--batch-overlap', '3')), {0, 2})


class Trouble(Case):
    """Nothing half-written, whatever happens."""

    def start(self, *args, **more):
        return subprocess.Popen([TESSERA, *args], cwd=self.folder, env=self.env, stderr=subprocess.PIPE, **more)

    def interrupted(self, number, name, *more):
        z = self.latent('long.latent', frames=200, height=8, width=8)
        p = self.start('render', z, '-o', name, '--json', *more, stdout=subprocess.PIPE)
        for line in p.stdout:
            if json.loads(line).get('frames', 0) > 1 and b'"progress"' in line:
                break
        p.send_signal(number)
        _, err = p.communicate(timeout=600)
        self.assertEqual(p.returncode, 130, err)
        self.assertEqual(err.decode().count('tessera: '), 1, err)
        self.assertIn(b'interrupted: ', err)

    def test_interrupted(self):
        for name in ('a.mp4', 'a.y4m', 'a.npy'):
            self.interrupted(signal.SIGINT, name)
            self.assertEqual(self.files(), ['long.latent'])
        self.interrupted(signal.SIGTERM, 'b.webm')
        self.assertEqual(self.files(), ['long.latent'])

    def test_interrupted_pictures_are_whole(self):
        self.interrupted(signal.SIGINT, 'p%04d.png')
        pictures = [name for name in self.files() if name != 'long.latent']
        self.assertGreater(len(pictures), 0)
        for name in pictures:
            self.assertRegex(name, r'^p\d{4}\.png$')
            with open(self.path(name), 'rb') as f:
                self.assertEqual(f.read()[-8:-4], b'IEND')

    def test_overwriting(self):
        z = self.latent()
        self.ok('render', z, '-o', 'a.y4m')
        self.fails(1, 'render', z, '-o', 'a.y4m', word='a.y4m')
        self.ok('render', z, '-o', 'a.y4m', '-y')
        self.ok('render', z, '-o', 'p%d.png')
        self.fails(1, 'render', z, '-o', 'p%d.png', '--frames', '4:', word='p4.png')
        self.ok('render', z, '-o', 'p%d.png', '--overwrite')

    def answer(self, text):
        """On a terminal it asks."""
        master, slave = pty.openpty()
        p = subprocess.Popen([TESSERA, 'render', 'a.latent', '-o', 'a.y4m'], cwd=self.folder, env=self.env, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        said = b''
        end = time.time() + 120
        while time.time() < end:
            if select.select([master], [], [], 0.1)[0]:
                try:
                    said += os.read(master, 4096)
                except OSError:
                    break
            if b'[y/N] ' in said and text:
                os.write(master, text)
                text = b''
        os.close(master)
        return p.wait(), said.decode()

    def test_it_asks_on_a_terminal(self):
        self.latent()
        with open(self.path('a.y4m'), 'w') as f:
            f.write('precious')
        status, said = self.answer(b'n\n')
        self.assertEqual(status, 1, said)
        self.assertEqual(os.path.getsize(self.path('a.y4m')), 8)
        status, said = self.answer(b'y\n')
        self.assertEqual(status, 0, said)
        self.assertGreater(os.path.getsize(self.path('a.y4m')), 8)
        self.assertIn('5/5 frames', said)

    def test_a_full_disk(self):
        z = self.latent()
        for name in ('mp4', 'mkv', 'webm', 'y4m', 'rgb24', 'npy', 'safetensors'):
            self.fails(1, 'render', z, '-o', '/dev/full', '--format', name, word='/dev/full: No space left')
            limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))
            self.fails(1, 'render', z, '-o', 'full.' + name, '--format', name, preexec_fn=limit, word='File too large')
        self.fails(1, 'render', z, '-o', 'f%d.png', preexec_fn=limit, word='File too large')

    def test_pipes(self):
        z = self.latent()
        shell = '"$0" render %s -o - --format y4m | ffprobe -v error -count_frames -show_entries stream=nb_read_frames -of csv=p=0 -' % z
        if shutil.which('ffprobe'):
            r = subprocess.run(['sh', '-c', shell, TESSERA], capture_output=True, env=self.env)
            self.assertEqual(r.stdout.split(), [b'5'], r.stderr)
        p = self.start('render', self.latent('long.latent', frames=40), '-o', '-', '--format', 'rgb24', stdout=subprocess.PIPE)
        p.stdout.read(100)
        p.stdout.close()
        _, err = p.communicate(timeout=600)
        self.assertEqual(p.returncode, 1, err)
        self.assertIn(b'tessera: cannot write: standard output: Broken pipe', err)

    def test_devices_are_written_in_place(self):
        self.ok('render', self.latent(), '-o', '/dev/null', '--format', 'mp4')
        self.assertTrue(os.path.exists('/dev/null') and not os.path.isfile('/dev/null'))

    def test_impossible_budgets(self):
        z = self.latent()
        self.fails(1, 'render', z, '-o', 'x.mp4', '--vram', '1M', word='1.0 MiB')
        self.fails(1, 'render', z, '-o', 'x.mp4', '--device', 'cuda:9')


class Asking(Case):
    """plan, info, inspect, bench."""

    def test_plan(self):
        text = self.ok('plan', '448x256x29').stdout.decode()
        self.assertIn('448x256', text)
        event = self.events('plan', '448x256x29')[-1]
        self.assertEqual((event['event'], event['size'], event['frames']), ('plan', [448, 256], 29))
        self.assertEqual(event['bytes']['total'], sum(event['bytes'][k] for k in ('weights', 'arena', 'caches', 'slots', 'frames')))
        self.assertEqual(self.events('plan', SPHERES)[-1]['bytes'], event['bytes'])
        self.assertEqual(self.events('plan', '1917x1075x80')[-1]['size'], [1920, 1080])
        tiled = self.events('plan', '1920x1080x81', '--tile', '256', '--overlap', '64')[-1]
        self.assertEqual(tiled['mode'], 'tiled')
        self.assertGreater(tiled['tiles'], 1)
        self.fails(1, 'plan', '1920x1080x81', '--vram', '1M')

    def test_info(self):
        text = self.ok('info').stdout.decode()
        for word in ('tessera', 'vulkan'):
            self.assertIn(word, text.lower())
        self.assertEqual({e['event'] for e in self.events('info')}, {'info'})

    def test_a_reader_that_has_enough(self):
        r = subprocess.run(['sh', '-c', '"$0" inspect "$1" | head -n 1', TESSERA, DEMO], capture_output=True)
        self.assertEqual((r.stdout, r.stderr), (b'file\n', b''))

    def test_inspect(self):
        text = self.ok('inspect', MODEL, SPHERES).stdout.decode()
        for word in ('safetensors', 'decoder.conv_out.weight', '[3, 32, 3, 3, 3]', 'latent_tensor'):
            self.assertIn(word, text)
        events = self.events('inspect', MODEL)
        self.assertLessEqual({'file', 'model', 'tensors'}, {e['section'] for e in events})

    def test_bench(self):
        events = self.events('bench', '48x32x9', '--repeat', '1')
        self.assertEqual({e['event'] for e in events}, {'model', 'op', 'plan', 'decode'})
        self.assertEqual({e['step'] for e in events if e['event'] == 'op'}, {'first', 'second', 'later'})
        self.assertIn('GFLOP/s', self.ok('bench', '48x32x1', '--repeat', '1').stdout.decode())

    def test_bench_of_a_card(self):
        text = self.ok('bench', '--model', '5090').stdout.decode()
        for word in ('a prediction, not measured', 'assumed: 217 TFLOP/s in 16 bits, 700 in int8, 700 in fp8', 'frames/s', '1280x720'):
            self.assertIn(word, text)
        self.assertIn('284 in int8, no fp8', self.ok('bench', '128x128x5', '--model', '3090').stdout.decode())
        seconds = {}
        self.env['TESSERA_MODEL'] = DEMO  # with channels that 8 bits take
        for card, wanted, got in (('4090', 'auto', 'int8'), ('4090', 'fp8', 'fp8'), ('3090', 'fp8', 'fp16')):
            last = self.events('bench', '1280x720x9', '--model', card, '--precision', wanted)[-1]
            self.assertEqual(last['precision'], got)
            seconds[card, got] = last['seconds']
        self.assertLess(seconds['4090', 'int8'], seconds['4090', 'fp8'])
        for card in ('RTX 5090', '5070 Ti', '3090'):
            events = self.events('bench', '128x128x5', '--model', card.replace('RTX ', ''))
            self.assertEqual({e['event'] for e in events}, {'model', 'op', 'predicted'})
            seconds[card] = events[-1]['seconds']
        self.assertLess(seconds['RTX 5090'], seconds['3090'])
        self.fails(1, 'bench', '--model', '6090')


class Texts(Case):
    """What is generated from the table."""

    def generate(self, what):
        return self.ok('--generate', what).stdout.decode()

    def test_man(self):
        text = self.generate('man')
        for command in COMMANDS:
            for _, name, _ in options_of(command):
                self.assertIn('\\-\\-' + name.replace('-', '\\-'), text)
        if not shutil.which('man'):
            self.skipTest('no man')
        with open(self.path('tessera.1'), 'w') as f:
            f.write(text)
        r = subprocess.run(['man', '--warnings', '-l', 'tessera.1'], cwd=self.folder, capture_output=True,
                           env=dict(os.environ, MANWIDTH='80', LC_ALL='C.UTF-8', MANPAGER='cat'))
        self.assertEqual((r.returncode, r.stderr), (0, b''))

    def complete(self, *words):
        script = '%s\nCOMP_WORDS=(%s) COMP_CWORD=%d\n_tessera tessera "$1" "$2"\nprintf "%%s\\n" "${COMPREPLY[@]}"' % (
            self.generate('bash').replace('compopt -o filenames', ':'), ' '.join("'%s'" % w for w in words), len(words) - 1)
        r = subprocess.run(['bash', '-c', script, '-', words[-1], words[-2]], cwd=self.folder, capture_output=True, text=True)
        self.assertEqual(r.stderr, '')
        return r.stdout.split()

    def test_bash(self):
        self.assertEqual(self.complete('tessera', 're'), ['render'])
        self.assertEqual(self.complete('tessera', 'render', '--prec'), ['--precision'])
        self.assertEqual(self.complete('tessera', 'render', '--device', 'c'), ['cpu', 'cuda'])
        self.assertEqual(self.complete('tessera', 'plan', '--format'), [])
        self.assertEqual(self.complete('tessera', 'render', '--format', 'mp'), ['mp4'])
        self.latent('my.latent')
        self.assertEqual(self.complete('tessera', 'render', 'm'), ['my.latent'])
        self.assertEqual(self.complete('tessera', 'render', '-o', 'm'), ['my.latent'])

    def test_zsh(self):
        text = self.generate('zsh')
        self.assertTrue(text.startswith('#compdef tessera\n'))
        if not shutil.which('zsh'):
            self.skipTest('no zsh')
        with open(self.path('_tessera'), 'w') as f:
            f.write(text)
        self.assertEqual(subprocess.run(['zsh', '-n', '_tessera'], cwd=self.folder, capture_output=True).stderr, b'')


# ---------------------------------------------------------------- TAP

class Tap(unittest.TestResult):
    count = 0

    def line(self, ok, test, rest=''):
        self.count += 1
        print('%s %d - %s%s' % (ok, self.count, test.id().split('.', 1)[1], rest), flush=True)

    def addSuccess(self, test):
        self.line('ok', test)

    def addSkip(self, test, reason):
        self.line('ok', test, ' # SKIP ' + reason)

    def addFailure(self, test, error):
        self.line('not ok', test)
        print('# ' + self._exc_info_to_string(error, test).replace('\n', '\n# '), flush=True)
        self.failures.append(test)

    addError = addFailure


def main(module=None):
    loader = unittest.TestLoader()
    suite = loader.loadTestsFromModule(module or sys.modules[__name__])
    tests = [t for group in suite for t in group]
    if sys.argv[3:]:
        tests = [t for t in tests if any(name in t.id() for name in sys.argv[3:])]
    subprocess.run([sys.argv[2], MODEL], check=True)
    print('1..%d' % len(tests))
    result = Tap()
    unittest.TestSuite(tests).run(result)
    sys.exit(bool(result.failures))


if __name__ == '__main__':
    main()
