#!/usr/bin/env python3
"""The window on a display: Xvfb, with real keys and a real mouse; and random input. Prints TAP.

    test_window.py TESSERA SYNTHETIC_MODEL [NAME...]

TESSERA_TEST_SECONDS: how long random input goes on (5).
"""
import os
import random
import shutil
import subprocess
import sys
import time

import test_cli
from test_cli import MODEL, TESSERA
from test_view import Base, read_png


class Display:
    """An X server of our own, and what a hand and an eye do there."""

    def __init__(self, env):
        read, write = os.pipe()
        self.server = subprocess.Popen(['Xvfb', '-displayfd', str(write), '-screen', '0', '1280x800x24', '-nolisten', 'tcp'],
                                       pass_fds=[write], stderr=subprocess.DEVNULL)
        os.close(write)
        with os.fdopen(read) as f:
            self.name = ':' + f.readline().strip()
        self.env = dict(env, DISPLAY=self.name)

    def close(self):
        self.server.terminate()
        self.server.wait()

    def do(self, *args):
        return subprocess.run(['xdotool', *map(str, args)], env=self.env, check=True, timeout=600, capture_output=True,
                              text=True).stdout.strip()

    def see(self, path, size='1280x800'):
        subprocess.run(['ffmpeg', '-v', 'error', '-y', '-f', 'x11grab', '-video_size', size, '-i', self.name,
                        '-frames:v', '1', '-pix_fmt', 'rgb24', path], check=True, timeout=600, stdin=subprocess.DEVNULL)

    def drag(self, x0, y0, x1, y1, steps=8):
        self.do('mousemove', x0, y0, 'mousedown', 1)
        self.do(*(word for i in range(1, steps + 1)
                  for word in ('mousemove', x0 + (x1 - x0) * i // steps, y0 + (y1 - y0) * i // steps)))
        self.do('mouseup', 1)


class Window(Base):
    def setUp(self):
        super().setUp()
        if not all(shutil.which(tool) for tool in ('Xvfb', 'xdotool', 'ffmpeg')):
            self.skipTest('no Xvfb, xdotool or ffmpeg')
        self.x = Display(self.env)
        self.addCleanup(self.x.close)

    def open(self, *args, geometry='1000x700+0+0'):
        self.p = subprocess.Popen([TESSERA, 'view', '-q', '--geometry', geometry, *args], cwd=self.folder, env=self.x.env,
                                  text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self.addCleanup(self.p.wait)
        self.addCleanup(self.p.kill)
        self.window = self.x.do('search', '--sync', '--onlyvisible', '--name', 'Tessera').split()[0]
        self.x.do('mousemove', 300, 300)  # keys go where the mouse is

    def close(self, *keys):
        """The keys end it: status 0 and nothing said, by us, the validation layers or a sanitizer."""
        self.x.do('key', *keys)
        out, err = self.p.communicate(timeout=1800)
        self.assertEqual((self.p.returncode, out, err), (0, '', ''))

    def wait_for(self, what, seconds=300):
        end = time.monotonic() + seconds
        while not what():
            self.assertIsNone(self.p.poll(), 'the window is gone')
            self.assertLess(time.monotonic(), end)
            time.sleep(0.2)

    def decoded(self, name):
        """Asks for the frame's picture until it is there: only whole frames are written."""
        def asked():
            self.x.do('key', 's')
            time.sleep(0.3)
            return os.path.exists(self.path(name))
        self.wait_for(asked)

    def test_by_hand(self):
        z = self.clip()
        self.ok('render', z, '-o', 'render%05d.png')
        self.open(z)
        self.wait_for(lambda: self.x.do('getwindowname', self.window) == 'a.latent - Tessera')
        self.decoded('a-00000.png')
        self.x.do('key', 'End')
        self.decoded('a-00008.png')
        self.assertTrue(self.bytes_of('a-00008.png') == self.bytes_of('render00008.png'))
        # At 100% the window's pixels are the file's.
        self.x.do('key', '1', 'mousemove', 10, 10)
        time.sleep(7)  # for messages to go
        self.x.see(self.path('seen.png'))
        width, height, rows = read_png(self.path('render00008.png'))
        x, y = (1000 - 316 - width) // 2, (700 - 64 - height) // 2
        seen = read_png(self.path('seen.png'))[2]
        self.assertTrue([seen[y + i][3 * x:3 * (x + width)] for i in range(height)] == rows)
        # Play, scrub, zoom, wipe, and sliders end to end and back, while it decodes.
        self.x.do('key', 'space', 'mousemove', 200, 668, 'click', 1, 'mousemove', 300, 300, 'click', 4, 'click', 4, 'key', 'w')
        for height_of_slider in 140, 181, 331:
            self.x.drag(708, height_of_slider, 968, height_of_slider)
            self.x.drag(968, height_of_slider, 708, height_of_slider)
        self.x.drag(342, 300, 500, 300)
        for i in range(50):
            self.x.do('windowsize', self.window, 400 + 17 * (i * 7 % 50), 300 + 9 * (i * 11 % 50))
        self.x.do('mousemove', 100, 100)
        self.close('q')

    def test_closed_while_decoding(self):
        self.open(self.clip(frames=30))
        self.close('Escape')

    def test_fullscreen(self):
        self.open(self.clip(), '--fullscreen')
        self.wait_for(lambda: 'WIDTH=1280' in self.x.do('getwindowgeometry', '--shell', self.window))
        self.x.do('key', 'f')
        self.wait_for(lambda: 'WIDTH=1000' in self.x.do('getwindowgeometry', '--shell', self.window))
        self.close('q')

    def test_idle_is_idle(self):
        """A window in which nothing happens takes next to no time of the processor."""
        self.open(self.clip(frames=1, height=4, width=4))
        self.decoded('a-00000.png')
        time.sleep(6)

        def spent():
            with open('/proc/%d/stat' % self.p.pid) as f:
                return sum(map(int, f.read().rsplit(')', 1)[1].split()[11:13])) / os.sysconf('SC_CLK_TCK')
        before = spent()
        time.sleep(3)
        self.assertLess(spent() - before, 0.3)
        self.close('q')


class Random(Base):
    def test_anything(self):
        """Everything stays alive, whatever is pressed, dragged, opened and lost."""
        seconds = float(os.environ.get('TESSERA_TEST_SECONDS', 5))
        rng = random.Random(7)
        files = [self.latent(name='%d.latent' % i, frames=1 + i, height=4 + 2 * i, width=6 + i) for i in range(4)]
        with open(self.path('bad.latent'), 'wb') as f:
            f.write(rng.randbytes(500))
        keys = list('[]-=120ghdwfeunabl,.pc?y ') + ['Left', 'Right', 'Home', 'End', 'Tab', 'shift+Left', 'shift+Right', 'space']

        def line():
            x, y = rng.randrange(700), rng.randrange(500)
            kind = rng.random()
            if kind < 0.5:
                key = rng.choice(keys)
                return 'key %s' % (key if key != ' ' else 'space')
            if kind < 0.65:
                return 'click %d %d' % (x, y)
            if kind < 0.8:
                return 'drag %d %d %d %d' % (x, y, rng.randrange(700), rng.randrange(500))
            if kind < 0.86:
                return 'wheel %d %d %d' % (x, y, rng.choice((-3, -1, 1, 3)))
            if kind < 0.9:
                return 'size %d %d' % (rng.randrange(200, 900), rng.randrange(150, 700))
            if kind < 0.92:
                return 'scale %g' % rng.choice((0.5, 1, 2, 3.3))
            if kind < 0.95:
                return 'wait seconds %g' % rng.choice((0, 0.05, 0.3))
            return 'drop %s' % rng.choice(files + [self.path('bad.latent'), 'gone', MODEL])
        with subprocess.Popen([TESSERA, 'view', files[0], '-q', '--geometry', '700x500', '--script', '-'], cwd=self.folder,
                              env=self.env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
            end, sent = time.monotonic() + seconds, []
            while time.monotonic() < end and p.poll() is None:
                sent.append(line())
                try:
                    p.stdin.write(sent[-1] + '\n')
                    if len(sent) % 10 == 0:  # no faster than it plays them
                        p.stdin.write('print\n')
                    p.stdin.flush()
                except BrokenPipeError:
                    break
                if len(sent) % 10 == 0 and not p.stdout.readline():
                    break
                time.sleep(0.01)
            out, err = p.communicate('key Escape\nkey Escape\nquit\n' if p.poll() is None else None, timeout=600)
        self.assertEqual((p.returncode, err), (0, ''), '\n'.join(sent[-40:]))
        self.assertGreater(len(sent), 5)


if __name__ == '__main__':
    test_cli.main(sys.modules[__name__])
