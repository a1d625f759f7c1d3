#!/usr/bin/env python3
"""The program as who has a GPU meets it, on the driver without one (fake/). Prints TAP.

    test_program.py TESSERA SYNTHETIC_MODEL [NAME...]
"""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
import test_cli  # noqa: E402
from test_cli import MODEL, TESSERA  # noqa: E402


class Gpu(test_cli.Case):
    def setUp(self):
        super().setUp()
        self.tiny = self.path('tiny.safetensors')
        subprocess.run([sys.argv[2], '--tiny', self.tiny], check=True)
        self.env['TESSERA_MODEL'] = self.tiny

    def test_info(self):
        text = self.ok('info').stdout.decode()
        for words in ('Fake GPU, sm_89', 'host pages that Vulkan imports; Vulkan runs on another device'):
            self.assertIn(words, text)

    def test_memory_is_as_planned(self):
        """To the byte, with caches on either side."""
        self.latent(frames=3, height=2, width=4)
        for options in (['--precision', 'int8'], ['--precision', 'fp16', '--caches', 'host']):
            done = self.events('render', 'a.latent', '-o', 'a.y4m', '-y', *options)[-1]
            self.assertEqual(done['peak_bytes'], done['planned_bytes'])
            self.assertEqual(done['host_peak_bytes'], done['host_planned_bytes'])

    def test_f32_is_the_cpus(self):
        self.latent(frames=2, height=2, width=2)
        self.fails(1, 'render', 'a.latent', '-o', 'a.y4m', '--precision', 'f32', word='--precision fp16, or --device cpu')
        self.fails(1, 'plan', 'a.latent', '--precision', 'f32', word='no f32 on Fake GPU')
        events = self.events('render', 'a.latent', '-o', 'b.y4m', '--precision', 'fp16', '--psnr')
        quality = [e for e in events if e['event'] == 'quality']
        self.assertEqual([q['against'] for q in quality], ['f32'])
        self.assertTrue(60 < quality[0]['psnr'] < 120, quality)
        self.assertIsNotNone(self.events('convert', self.tiny, '-o', 'c.gguf', '--type', 'q8_0')[-1]['psnr'])

    def test_a_quality_to_hold(self):
        self.latent(frames=1, height=2, width=2)
        text = self.ok('render', 'a.latent', '-o', 'a.y4m', '--quality', '48').stderr.decode()
        self.assertIn('dB with all of them in int8', text)

    def test_there_and_back(self):
        """An encode is wide unless told otherwise."""
        subprocess.run(['ffmpeg', '-v', 'error', '-f', 'lavfi', '-i', 'testsrc=size=16x16:rate=8', '-frames:v', '1',
                        self.path('a.png')], check=True)
        text = self.ok('encode', 'a.png', '-o', 'a.latent', '-m', MODEL).stderr.decode()
        self.assertIn('fp16 on Fake GPU', text)
        events = self.events('render', 'a.latent', '-o', 'b.png', '-m', MODEL, '--like', 'a.png', '--psnr')
        self.assertEqual([e['against'] for e in events if e['event'] == 'quality'], ['a.png', 'f32'])

    def test_window(self):
        """With nothing known of the model, so that the rough picture is fitted first, by an engine of its own; then
        another precision."""
        self.latent(frames=2, height=2, width=4)
        self.env['XDG_CACHE_HOME'] = self.path('cache')
        script = 'wait first\nprint\nset precision fp16\nwait first\nwait idle\nprint\n'
        r = subprocess.run([TESSERA, 'view', 'a.latent', '-q', '--offscreen', 'a.png', '--script', '-'], input=script,
                           capture_output=True, text=True, env=self.env, cwd=self.folder, timeout=600)
        self.assertEqual((r.returncode, r.stderr), (0, ''))
        before, after = [json.loads(line) for line in r.stdout.splitlines()]
        self.assertEqual((before['precision'], after['precision'], after['state']), ('int8', 'fp16', 'done'))
        self.assertTrue(after['rough'] and after['whole'] == after['frames'], after)


if __name__ == '__main__':
    test_cli.main(sys.modules[__name__])
