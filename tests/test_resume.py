#!/usr/bin/env python3
"""render --resume from outside: killed with SIGKILL at any moment, the result is that of a render nobody disturbed, and
pictures that were whole are not written again. Prints TAP.

    test_resume.py TESSERA SYNTHETIC_MODEL [NAME...]

TSR_MOMENTS says how often each render is killed (2)."""
import glob
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time

if os.access('/dev/shm', os.W_OK): # syncing files in memory costs nothing
    tempfile.tempdir = '/dev/shm'

import test_cli
from test_cli import TESSERA

MOMENTS = int(os.environ.get('TSR_MOMENTS', '2'))
FRAMES = 193 # of 49 latents: more than anything sees back, and three parts of a video


class Killed(test_cli.Case):
    def setUp(self):
        super().setUp()
        self.random = random.Random(5)

    def start(self, *args):
        return subprocess.Popen([TESSERA, 'render', *args, '--resume', '--json'], cwd=self.folder, env=self.env,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def kill_at(self, frames, delay, *args):
        """Kills it so many seconds after that many frames. Whether it was still there."""
        p = self.start(*args)
        if frames:
            for line in p.stdout:
                if b'"progress"' in line and json.loads(line)['frames'] >= frames:
                    break
        time.sleep(delay)
        p.kill()
        out, err = p.communicate(timeout=1800)
        self.assertIn(p.returncode, (0, -signal.SIGKILL), err)
        return p.returncode != 0

    def pictures(self):
        return {name: os.stat(self.path(name)).st_mtime_ns for name in self.files() if name.endswith('.png') and name != 'clip.png'}

    def is_whole(self, out, frames):
        """Of a render that was killed when there was nothing left to do."""
        last = out % (frames - 1) if '%' in out else out
        return os.path.exists(self.path(last)) and not os.path.exists(self.path(out + '.resume'))

    def disturbed(self, out, *args, moments=MOMENTS, frames=FRAMES):
        """Kills a render at random moments, each time further on, and lets it come to its end."""
        left, killed = {}, 0
        for at in sorted(self.random.randrange(0, frames) for _ in range(moments)):
            killed += self.kill_at(at, self.random.uniform(0, 0.03), *args, '-o', out)
            now = self.pictures()
            self.assertEqual({k: now.get(k) for k in left}, left, 'a whole picture was written again')
            left = now
            if self.is_whole(out, frames):
                break
        self.assertGreater(killed, 0)
        if not self.is_whole(out, frames):
            events = [json.loads(line) for line in self.ok('render', *args, '-o', out, '--resume', '--json').stdout.splitlines()]
            self.assertEqual((events[-1]['event'], events[-1]['frames']), ('done', frames))
        self.assertEqual({k: v for k, v in self.pictures().items() if k in left}, left, 'a whole picture was written again')
        self.assertEqual([name for name in self.files() if re.search(r'\.(part|parts|resume)$', name)], [])

    def read(self, name):
        with open(self.path(name), 'rb') as f:
            return f.read()

    def same(self, suffix, *args, **more):
        self.ok('render', *args, '-o', 'once.' + suffix)
        self.disturbed('killed.' + suffix, *args, **more)
        self.assertEqual(self.read('once.' + suffix), self.read('killed.' + suffix))


class Resume(Killed):
    def test_pictures(self):
        z = self.latent(frames=49, height=2, width=3)
        self.ok('render', z, '-o', 'once%05d.png')
        self.disturbed('killed%05d.png', z)
        for i in range(FRAMES):
            self.assertEqual(self.read('once%05d.png' % i), self.read('killed%05d.png' % i), i)

    def test_video(self):
        self.same('mp4', self.latent(frames=49, height=2, width=3))

    def test_only_the_look_back_is_decoded_again(self):
        z = self.latent(frames=80, height=2, width=3)
        self.assertTrue(self.kill_at(160, 0, z, '-o', 'a.npy'))
        r = self.ok('render', z, '-o', 'a.npy', '--resume', '--json', '--trace', 't.json')
        there = [e for e in map(json.loads, r.stdout.splitlines()) if e['event'] == 'resume'][0]['frames']
        steps = re.findall(r'"tile 0 latent (\d+)"', self.read('t.json').decode())
        self.assertGreaterEqual(min(map(int, steps)), (there + 3) // 4 - 37)
        self.assertGreater(min(map(int, steps)), 0)

    def test_another_render_does_not_fit(self):
        z, other = self.latent(frames=49, height=2, width=3), self.latent('b.latent', frames=49, height=2, width=3, seed=2)
        self.assertTrue(self.kill_at(20, 0, z, '-o', 'a.y4m'))
        for args, word in (([other], 'latent'), ([z, '--fps', '25'], 'rate 25/1'),
                           ([z, '--precision', 'fp16'], 'precision fp16'),
                           ([z, '--frames', ':190'], 'frames 190'), ([z, '--dither', 'none'], 'dither none'),
                           ([z, '--tile', '16'], 'tiles 16x16'), ([z, '-m', test_cli.DEMO], 'model')):
            self.fails(1, 'render', *args, '-o', 'a.y4m', '--resume', word=word)
        self.fails(2, 'render', z, '-o', '-', '--format', 'y4m', '--resume', word='--resume')
        self.fails(2, 'render', z, '--format', 'null', '--resume', word='--resume')
        self.ok('render', z, '-o', 'a.y4m', '--resume', '--vram', '2G')  # the same plan
        self.assertEqual(self.files(), ['a.latent', 'a.y4m', 'b.latent'])

    def test_rates_found_anew_change_no_plan(self):
        self.env['XDG_CACHE_HOME'] = self.path('cache')
        args = [self.latent(frames=17, height=4, width=6), '--tile', '24', '--overlap', '8', '--precision', 'f32',
                '--device', 'cpu']
        self.ok('plan', *args)
        rates, = glob.glob(self.path('cache/tessera/rates-*'))

        def found(gemm, bandwidth):
            with open(rates, 'w', encoding='ascii') as f:
                f.write('tessera rates 1\n%d %.4e %.4e\n' % (time.time(), gemm, bandwidth))

        found(1e8, 1e12) # parking costs nothing: a segment is one latent; else, as many as there are frames
        least = self.events('plan', *args, '--caches', 'host', '--vram', '8G')[-1]
        self.assertEqual(least['segment'], 1)
        args += ['--vram', str(least['bytes']['total'] + 5 * least['bytes']['frames'])]
        found(1e12, 1e8)
        plan = [e for e in self.events('render', *args, '-o', 'once.y4m') if e['event'] == 'plan'][0]
        self.assertTrue(self.kill_at(25, 0, *args, '-o', 'killed.y4m'))
        found(1e8, 1e12)
        self.assertNotEqual(self.events('plan', *args)[-1]['segment'], plan['segment'])
        events = self.events('render', *args, '-o', 'killed.y4m', '--resume')
        self.assertIn('resume', [e['event'] for e in events])
        again, = [e for e in events if e['event'] == 'plan']
        for key in ('segment', 'bytes', 'budget'):
            self.assertEqual(again[key], plan[key])
        self.assertEqual(self.read('once.y4m'), self.read('killed.y4m'))

    def test_an_interrupted_render_is_kept(self):
        z = self.latent(frames=80, height=2, width=3)
        p = self.start(z, '-o', 'a.mkv')
        for line in p.stdout:
            if b'"progress"' in line and json.loads(line)['frames'] > 97:
                break
        p.send_signal(signal.SIGINT)
        _, err = p.communicate(timeout=1800)
        self.assertEqual(p.returncode, 130, err)
        self.assertRegex(err.decode().splitlines()[-1], r'^tessera: interrupted: a\.mkv; \d+ of 317 frames are kept')
        self.assertEqual(self.files(), ['a.latent', 'a.mkv.parts', 'a.mkv.resume'])
        self.ok('render', z, '-o', 'b.mkv')
        self.ok('render', z, '-o', 'a.mkv', '--resume')
        self.assertEqual(self.read('a.mkv'), self.read('b.mkv'))


class Long(Killed):
    """Every format, and everything that a render is made of; with TSR_MOMENTS=20."""

    def test_formats(self):
        z = self.latent(frames=49, height=2, width=3)
        for suffix in ('mkv', 'webm', 'y4m', 'npy', 'safetensors'):
            self.same(suffix, z)
        self.same('rgb48', z, '--format', 'rgb48')

    def test_several_latents_fade(self):
        z = [self.latent('%d.latent' % i, frames=17, height=2, width=3, seed=i) for i in range(3)]
        self.same('y4m', *z, '--batch-overlap', '5', frames=3 * 65 - 10)

    def test_a_stretch_of_frames(self):
        self.same('mp4', self.latent(frames=60, height=2, width=3), '--frames', '30:223')

    def test_tiles_and_precisions(self):
        z = self.latent(frames=49, height=4, width=6)
        self.same('npy', z, '--tile', '24', '--overlap', '8')
        self.same('npy', z, '--precision', 'int8', '-y')

    def test_with_the_sound_of_a_clip(self):
        clip = os.path.join(os.environ['TSR_TEST_DATA'], 'media', 'sound.mp4')
        self.same('mkv', self.latent(frames=49, height=2, width=3), '--like', clip, '--fps', '24')


if __name__ == '__main__':
    test_cli.main(sys.modules[__name__])
