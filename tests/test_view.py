#!/usr/bin/env python3
"""The window without a window system: every key, the sliders, what is drawn and written. Prints TAP.

    test_view.py TESSERA SYNTHETIC_MODEL [NAME...]
"""
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib

import test_cli
from test_cli import DEMO, MODEL, SPHERES, TESSERA

VALIDATION = any(os.path.exists(os.path.join(d, 'VkLayer_khronos_validation.json'))
                 for d in ('/usr/share/vulkan/explicit_layer.d', '/etc/vulkan/explicit_layer.d'))


def read_png(path):
    """Width, height, rows of RGB bytes: 8 bits, not interlaced, as this program writes them."""
    with open(path, 'rb') as f:
        data = f.read()
    at, packed = 8, b''
    while at < len(data):
        length, kind = struct.unpack('>I4s', data[at:at + 8])
        if kind == b'IHDR':
            width, height, depth, colour = struct.unpack('>IIBB', data[at + 8:at + 18])
        if kind == b'IDAT':
            packed += data[at + 8:at + 8 + length]
        at += 12 + length
    assert (depth, colour) == (8, 2), (depth, colour)
    raw, stride, rows = zlib.decompress(packed), 3 * width, []
    before = bytearray(stride)
    for y in range(height):
        kind, line = raw[y * (stride + 1)], bytearray(raw[y * (stride + 1) + 1:(y + 1) * (stride + 1)])
        for i in range(stride) if kind else ():
            left, up, corner = line[i - 3] if i > 2 else 0, before[i], before[i - 3] if i > 2 else 0
            if kind == 1:
                line[i] = (line[i] + left) & 255
            elif kind == 2:
                line[i] = (line[i] + up) & 255
            elif kind == 3:
                line[i] = (line[i] + (left + up) // 2) & 255
            else:
                guess = left + up - corner
                near = min((abs(guess - left), 0, left), (abs(guess - up), 1, up), (abs(guess - corner), 2, corner))
                line[i] = (line[i] + near[2]) & 255
        rows.append(bytes(line))
        before = line
    return width, height, rows


class Base(test_cli.Case):
    def setUp(self):
        super().setUp()
        self.env.update(XDG_CACHE_HOME=self.path('cache'), HOME=self.folder)
        for name in ('DISPLAY', 'WAYLAND_DISPLAY'):
            self.env.pop(name, None)
        if VALIDATION:
            self.env['TESSERA_VALIDATION'] = '1'

    def clip(self, frames=3, height=12, width=16, **more):
        return self.latent(frames=frames, height=height, width=width, **more)

    def play(self, script, *args, status=0):
        """The states that a script prints; nothing may be said on standard error."""
        r = subprocess.run([TESSERA, 'view', *args, '-q', '--geometry', '640x400', '--script', '-'], input=script, cwd=self.folder, env=self.env,
                           text=True, timeout=900, capture_output=True)
        self.assertEqual(r.returncode, status, r.stderr)
        if not status:
            self.assertEqual(r.stderr, '')
        self.said = r.stderr
        return [json.loads(line) for line in r.stdout.splitlines()]

    def bytes_of(self, name):
        with open(self.path(name), 'rb') as f:
            return f.read()


class View(Base):
    # ------------------------------------------------------------ keys

    def test_time_keys(self):
        keys = ['Right', 'Right', 'Left', 'End', 'Left', 'Home', 'shift+Right', 'shift+Left', 'Left']
        s = self.play('wait idle\n' + ''.join('key %s\nprint\n' % k for k in keys) +
                      'set loop off\nkey space\nprint\nwait seconds 0.6\nprint\nset frame 0\nkey space\nprint\n', self.clip(), '--fps', '4')
        self.assertEqual([v['frame'] for v in s[:9]], [1, 2, 1, 8, 7, 0, 4, 0, 0])
        self.assertTrue(s[9]['playing'])
        self.assertGreaterEqual(s[10]['frame'], 1)
        self.assertEqual(s[0]['frames'], 9)

    def test_play_ends_or_loops(self):
        s = self.play('wait idle\nset loop off\nkey End\nkey Left\nkey space\nwait seconds 0.5\nprint\nset loop on\n'
                      'key End\nkey space\nwait seconds 0.5\nprint\nkey space\nprint\n', self.clip(), '--fps', '10')
        self.assertEqual((s[0]['frame'], s[0]['playing']), (8, False))
        self.assertEqual((s[1]['playing'], s[2]['playing']), (True, False))

    def test_tile_and_memory_keys(self):
        s = self.play('wait first\nprint\nkey ]\nprint\nkey ]\nprint\nkey [\nprint\nkey [\nkey [\nprint\nkey =\nprint\n'
                      'key =\nprint\nkey -\nprint\nwait idle\nprint\n', self.clip())
        self.assertEqual(s[0]['tile'], [128, 96])
        self.assertEqual([v['tile'] for v in s[1:4]], [[32, 32], [40, 40], [32, 32]])
        self.assertEqual(s[4]['tile'], [128, 96])
        self.assertEqual([v['vram'] >> 20 for v in s[5:8]], [64, 76, 64])
        self.assertEqual((s[8]['state'], s[8]['whole'], s[8]['plan_error']), ('done', 9, ''))

    @test_cli.fails_allocations
    def test_memory_runs_short(self):
        """A smaller plan goes on, one line says so, and the dials work as before."""
        z = self.clip()
        asked, = self.play('wait rough\nprint\n', z)  # its map is kept: the next allocation is the decode's
        self.env.update(LD_PRELOAD=os.environ['TSR_PRELOAD'], TSR_FAIL_ALLOC='0')
        s = self.play('wait idle\nprint\nset frame 8\nwait idle\nprint\nset tile 48\nwait idle\nprint\n', z)
        self.assertEqual([(v['state'], v['whole'], v['plan_error']) for v in s], [('done', 9, '')] * 3)
        for v in s[:2]:
            self.assertRegex(v['shrunk'], r'memory.*going on with a plan of .*MiB')
            self.assertLess(v['planned_bytes'], asked['planned_bytes'])  # what is shown is the plan in force
        self.assertEqual(s[2]['shrunk'], '')

    def test_zoom_keys_and_mouse(self):
        s = self.play('wait first\nset zoom fit\nprint\nkey 1\nprint\nkey 2\nprint\nwheel 150 100 1\nprint\nkey 0\nprint\n'
                      'key 1\ndrag 150 200 190 170\nprint\n', self.clip())
        self.assertAlmostEqual(s[0]['zoom'], (640 - 316 - 28) / 128, delta=0.01)
        self.assertEqual([v['zoom'] for v in s[1:3]], [1, 2])
        self.assertAlmostEqual(s[3]['zoom'], 2.4)
        # What is under the pointer stays there, to the pixel that pictures are placed by.
        for axis, at in ('left', 150), ('top', 100):
            self.assertAlmostEqual(s[2][axis] + at / 2, s[3][axis] + at / 2.4, delta=0.5)
        self.assertAlmostEqual(s[4]['zoom'], s[0]['zoom'])
        self.assertEqual((s[5]['left'] - s[1]['left'], s[5]['top'] - s[1]['top']), (-40, 30))

    def test_look_keys(self):
        """Each of these keys changes what is drawn, and changes it back."""
        keys = ['g', 'e', 'u', 'h', 'n', 'Tab', '?', 'd']
        lines = 'set panel off\nset tile 48\nwait idle\nkey 2\nscreenshot none.png\n'
        for i, k in enumerate(keys):
            lines += 'key %s\nscreenshot on%d.png\nkey %s\nscreenshot off%d.png\n' % (k, i, k, i)
        self.play(lines, self.clip())
        none = self.bytes_of('none.png')
        for i, k in enumerate(keys):
            self.assertTrue(self.bytes_of('on%d.png' % i) != none, k)
            if k != 'd':  # which leaves a message
                self.assertTrue(self.bytes_of('off%d.png' % i) == none, k)

    def test_other_keys(self):
        s = self.play('wait first\nkey f\nprint\nkey f\nprint\nkey ?\nprint\nkey Escape\nprint\nkey o\nprint\n'
                      'key Escape\nkey r\nprint\nkey Escape\nkey y\nprint\nkey q\nprint\n', self.clip())
        self.assertEqual([v['fullscreen'] for v in s[:2]], [True, False])
        self.assertEqual([v['dialog'] for v in s[2:6]], [1, 0, 2, 3])
        self.assertTrue(s[6]['clipboard'].startswith('tessera render '))
        self.assertEqual(len(s), 7)  # q has ended it
        self.assertEqual(self.play('wait first\nkey Escape\nprint\n', self.clip()), [])

    # ------------------------------------------------------------ comparing

    def test_wipe_and_difference(self):
        s = self.play('set panel off\nwait idle\nkey 1\nkey w\nwait seconds 0.5\nprint\nset tile 48\nwait idle\n'
                      'wait seconds 0.5\nprint\nscreenshot wipe.png\nset wipe-at 0\nset wipe off\nscreenshot now.png\n'
                      'key d\nset gain 64\nscreenshot difference.png\nprint\n', self.clip())
        self.assertTrue(s[0]['equal'])
        self.assertFalse(s[1]['equal'])
        self.assertTrue(5 < s[1]['psnr'] < 100, s[1]['psnr'])
        self.assertEqual(s[2]['gain'], 64)
        self.assertTrue(self.bytes_of('now.png') != self.bytes_of('difference.png'))

    # ------------------------------------------------------------ sliders

    def test_sliders(self):
        """Dragged end to end and back while decoding; in the end all is as it was, and decoded."""
        lines = 'size 1280 1200\nset square off\nwait first\n'
        for item in 'tile-width', 'tile-height', 'overlap', 'vram':
            lines += 'slide %s 0 1\nprint\nslide %s 1 0\nprint\n' % (item, item)
        s = self.play(lines + 'wait idle\nprint\n', self.clip(frames=4))
        self.assertEqual([s[0]['tile'][0], s[2]['tile'][1]], [128, 96])
        self.assertGreater(s[6]['vram'], 1 << 30)
        self.assertEqual(s[7]['vram'], 0)
        self.assertEqual((s[8]['state'], s[8]['whole'], s[8]['grid']), ('done', 13, [1, 1]))

    def test_what_does_not_fit(self):
        s = self.play('wait first\nset vram 1M\nprint\nwait seconds 0.3\nscreenshot no.png\nset vram auto\nwait idle\nprint\n', self.clip())
        self.assertIn('1', s[0]['plan_error'])
        self.assertEqual((s[1]['plan_error'], s[1]['whole']), ('', 9))

    # ------------------------------------------------------------ files

    def test_true_pixels(self):
        """The saved frame, and the frame in the window at 100%, are render's PNG to the byte and the pixel."""
        z = self.clip()
        self.ok('render', z, '-o', 'render%05d.png', '--tile', '64', '--overlap', '16')
        s = self.play('set tile 64\nset overlap 16\nwait idle\nset frame 5\nkey 1\nsave mine.png\n'
                      'screenshot window.png\nkey s\nprint\n', z)
        self.assertTrue(self.bytes_of('mine.png') == self.bytes_of('render00005.png'))
        width, height, rows = read_png(self.path('render00005.png'))
        window = read_png(self.path('window.png'))[2]
        x, y = int(-s[0]['left']), int(-s[0]['top'])
        self.assertEqual([window[y + i][3 * x:3 * (x + width)] for i in range(height)], rows)
        self.assertTrue(os.path.exists(self.path('a-00005.png')), s[0]['message'])

    def test_render_and_command(self):
        z = self.clip()
        s = self.play('set tile 64\nset vram 80M\nset precision f32\nwait idle\nrender out.y4m\nwait render\nwait idle\nkey y\nprint\n'
                      'render out.y4m\nprint\n', z)
        command = s[0]['clipboard'].split()
        self.assertEqual(command[:2], ['tessera', 'render'])
        self.ok(*command[1:-1] if command[-1] == '-y' else command[1:], '--format', 'y4m', '-y')
        self.assertTrue(self.bytes_of('out.y4m') == self.bytes_of('a.mp4'))
        self.assertIn('exists', s[1]['message'])

    def test_quality(self):
        """Measured beside the window, held by its plans, and part of the command."""
        z, options = self.clip(), ('--precision', 'int8', '--quality', '60')
        s = self.play('wait idle\nsave mine.png\nkey y\nprint\nset precision f32\nwait idle\nkey y\nprint\n', z, *options)
        self.ok('render', z, '-o', 'render%05d.png', *options)
        self.assertTrue(self.bytes_of('mine.png') == self.bytes_of('render00000.png'))
        self.ok('render', z, '-o', 'all%05d.png', '--precision', 'int8')
        self.assertTrue(self.bytes_of('mine.png') != self.bytes_of('all00000.png'))
        self.assertIn('--quality 60 --precision int8', s[0]['clipboard'])
        self.assertNotIn('--quality', s[1]['clipboard'])

    def test_folder(self):
        """A folder's newest latent, and then the next one, but not half of it."""
        os.mkdir(self.path('new'))
        whole = self.clip(name='whole.latent')
        shutil.copy(whole, self.path('new/one.latent'))
        with open(whole, 'rb') as f:
            data = f.read()
        with subprocess.Popen([TESSERA, 'view', 'new', '--script', '-'], cwd=self.folder, env=self.env, text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
            def state(lines='print\n'):
                p.stdin.write(lines)
                p.stdin.flush()
                return json.loads(p.stdout.readline())
            self.assertEqual(state('wait first\nprint\n')['name'], 'one.latent')
            with open(self.path('new/two.latent'), 'wb') as f:
                f.write(data[:len(data) // 2])
                f.flush()
                self.assertEqual(state('wait seconds 1.2\nprint\n')['name'], 'one.latent')
                f.write(data[len(data) // 2:])
            self.assertEqual(state('wait seconds 1.2\nwait first\nprint\n')['name'], 'two.latent')
            p.communicate('quit\n')
        self.assertEqual(p.returncode, 0)

    def test_nothing_open(self):
        s = self.play('print\nscreenshot welcome.png\nclick welcome-demo\nprint\nwait rough\nprint\n', '-m', DEMO)
        self.assertEqual([s[0]['frames'], s[1]['name'], s[1]['frames']], [0, 'spheres.latent', 29])
        self.assertTrue(s[2]['rough'])

    def test_errors_stay_in_the_window(self):
        with open(self.path('bad.latent'), 'wb') as f:
            f.write(b'nothing of the kind')
        s = self.play('drop gone.latent\nprint\ndrop bad.latent\nprint\ndrop %s\nwait idle\nprint\n' % self.clip())
        self.assertIn('gone.latent', s[0]['message'])
        self.assertIn('bad.latent', s[1]['message'])
        self.assertEqual(s[2]['whole'], 9)

    def test_settings_are_kept(self):
        z = self.clip()
        self.play('set tile 64\nset overlap 16\nset vram 128M\nset panel off\nwait first\n', z)
        s = self.play('print\nkey o\nwait draws 2\nclick recent-0\nwait idle\nprint\n')
        self.assertEqual((s[0]['name'], s[1]['name'], s[1]['whole']), ('', 'a.latent', 9))
        self.assertEqual((s[1]['tile'], s[1]['overlap'], s[1]['vram'], s[1]['panel']), ([56, 56], [16, 16], 128 << 20, False))

    # ------------------------------------------------------------ trouble

    def test_device_lost(self):
        s = self.play('wait idle\nset frame 3\nlose device\nwait seconds 0.1\nwait idle\nprint\nlose window\nwait seconds 0.1\n'
                      'wait idle\nprint\nsave after.png\n', self.clip())
        self.assertEqual([(v['losses'], v['frame'], v['whole']) for v in s], [(1, 3, 9), (2, 3, 9)])
        self.assertTrue(os.path.exists(self.path('after.png')))

    def test_closed_while_decoding(self):
        self.play('wait rough\nquit\n', SPHERES, '-m', DEMO)

    def test_sizes(self):
        """From small to 4K, at 100% and 200%: a picture of that size, and the panel in it."""
        self.play('wait first\nsize 800 500\nscreenshot small.png\nsize 3840 2160\nscale 2\nscreenshot large.png\n', self.clip())
        self.assertEqual(struct.unpack('>II', self.bytes_of('small.png')[16:24]), (800, 500))
        self.assertEqual(struct.unpack('>II', self.bytes_of('large.png')[16:24]), (3840, 2160))

    def test_minimised(self):
        """Nothing is drawn, keys and the decode go on; and then it is there again."""
        s = self.play('wait first\nset loop off\nset panel off\nsize 0 0\nkey End\nwait idle\nprint\nwait seconds 0.5\nprint\n'
                      'size 640 400\nscreenshot back.png\nprint\n', self.clip())
        self.assertEqual((s[0]['whole'], s[0]['frame'], s[0]['losses']), (9, 8, 0))
        self.assertEqual(s[1]['drawn'], s[0]['drawn'])
        self.assertGreater(s[2]['drawn'], s[1]['drawn'])
        self.assertEqual(struct.unpack('>II', self.bytes_of('back.png')[16:24]), (640, 400))

    def test_tune(self):
        """Fills the chart in the background, can be stopped, and its best can be taken; the video is decoded after."""
        s = self.play('size 700 1400\nwait idle\nkey t\nprint\nkey t\nprint\nclick tune\nwait tune\nprint\n'
                      'hover tune-chart\nclick use-best\nprint\nwait idle\nprint\nscreenshot tune.png\n', self.clip())
        self.assertEqual([v['tuning'] for v in s], [True, False, False, False, False])
        self.assertGreater(s[2]['tuned'], 0)
        self.assertNotEqual(s[2]['best'], [0, 0])
        self.assertEqual((s[3]['tile'], s[4]['whole']), (s[2]['best'], 9))

    def test_threads(self):
        """All threads at once, on next to nothing: what the thread sanitizer watches. Decode, plans for the sliders, blending,
        playing, a render and a tuning beside it, another video, a lost device, the end in the middle of a decode."""
        tiny, clip = self.path('tiny.safetensors'), self.clip(2, 6, 8)
        subprocess.run([os.path.abspath(sys.argv[2]), '--tiny', tiny], check=True)
        self.env.pop('TESSERA_VALIDATION', None)  # whose layer is slow there, and watched elsewhere
        s = self.play('wait rough\nslide tile-width 0.2 0.6\nwait draws 3\nset overlap 0\nwait first\nset tile 8\nkey space\n'
                      'wait draws 5\nwait idle\nprint\nrender out.png\nwait render\nkey t\nwait tune\nprint\ndrop %s\nwait draws 3\n'
                      'wait first\nlose device\nwait draws 5\nwait idle\nprint\nset tile 10\nwait draws 2\nquit\n' % clip, clip, '-m', tiny)
        self.assertEqual((s[0]['whole'], s[0]['grid'], s[0]['playing']), (3, [2, 2], True))
        self.assertGreater(s[1]['tuned'], 0)
        self.assertEqual((s[2]['losses'], s[2]['plan_error']), (1, ''))

    def test_no_display(self):
        self.fails(1, 'view', self.clip(), word='render')

    def test_usage(self):
        self.fails(2, 'view', '--geometry', '10', word='--geometry')
        self.play('nonsense\n', status=2)
        self.assertIn('nonsense', self.said)
        self.ok('view', self.clip(), '--offscreen', 'o.png', '--geometry', '500x400')
        self.assertEqual(struct.unpack('>II', self.bytes_of('o.png')[16:24]), (500, 400))


if __name__ == '__main__':
    test_cli.main(sys.modules[__name__])
