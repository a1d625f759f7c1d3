#!/usr/bin/env python3
"""How the window feels, on the demo: what `meson test --benchmark view` runs. Prints a table.

    bench_view.py TESSERA [--size 1280x800] [--rounds 3] [--precision auto]

Drawn without a window system, so the display's own rate does not count. Every number is of the program's own clock.
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time


class Window:
    """`tessera view` on the demo, driven line by line."""

    def __init__(self, tessera, size, precision='auto'):
        assets = os.environ['TSR_ASSETS']
        self.cache = tempfile.TemporaryDirectory(prefix='tessera-bench-')
        env = dict(os.environ, XDG_CACHE_HOME=self.cache.name)
        self.p = subprocess.Popen([tessera, 'view', os.path.join(assets, 'spheres.latent'), '-q', '--geometry', size,
                                   '-m', os.path.join(assets, 'demo-vae.safetensors'), '--precision', precision,
                                   '--script', '-'],
                                  env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def do(self, *lines):
        """Plays them and returns the state after."""
        self.p.stdin.write('\n'.join(lines + ('print', '')))
        self.p.stdin.flush()
        return json.loads(self.p.stdout.readline())

    def spent(self):
        """Processor time of the whole process so far, seconds."""
        with open('/proc/%d/stat' % self.p.pid) as f:
            return sum(map(int, f.read().rsplit(')', 1)[1].split()[11:13])) / os.sysconf('SC_CLK_TCK')

    def close(self):
        self.p.communicate('quit\n')
        self.cache.cleanup()
        return self.p.returncode


def draw(w, draws, *lines):
    """Draws so many frames, while whatever goes on goes on: frames a second, but for the few that the end of a wait
    forces; processor time; frames and among them new pictures of the video."""
    a = w.do(*lines)
    before = w.spent()
    b = w.do('wait draws %d' % draws)
    return draws / (b['time'] - a['time']), w.spent() - before, b['drawn'] - a['drawn'], b['pictures'] - a['pictures']


def decoded(w):
    """Rows of a video of which there is nothing left to do but draw."""
    still, spent, frames, _ = draw(w, 120, 'wait seconds 1')
    interface = spent / frames
    playing, spent, frames, pictures = draw(w, 180, 'key space')
    w.do('key space')
    return [('frames a second, all decoded, still', '%.0f' % still, '60'),
            ('frames a second, all decoded, playing', '%.0f' % playing, '60'),
            ('processor time of a frame of the interface', '%.1f ms' % (1e3 * interface), ''),
            ('and of a new picture of the video', '%.1f ms' % (1e3 * (spent - frames * interface) / pictures), '')]


def latency(w, n):
    """Seconds from a key to the frame that shows it, drawn at once: the longest of n."""
    longest = 0
    for i in range(n):
        a = w.do()
        b = w.do('key g')
        longest = max(longest, b['time'] - a['time'])
    return longest


def main():
    p = argparse.ArgumentParser()
    p.add_argument('tessera')
    p.add_argument('--size', default='1280x800')
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--precision', default='auto')
    o = p.parse_args()
    rows = []
    w = Window(os.path.abspath(o.tessera), o.size, o.precision)
    first = w.do('wait rough')
    s = w.do('wait first')
    rows.append(('open to the first complete frame', '%.2f s' % s['first_seconds'], ''))
    assert s['state'] == 'decoding', s['state']
    rows.append(('frames a second while decoding', '%.0f' % draw(w, 90, 'wait seconds 0.5')[0], '20 or more'))
    rows.append(('a key to its frame while decoding, longest of 40', '%.0f ms' % (1e3 * latency(w, 40)), 'under 100 ms'))
    plans, firsts = [], []
    for i in range(o.rounds):
        for tile in '128', '192', 'auto':
            plans.append(w.do('set tile ' + tile)['plan_seconds'])
            s = w.do('wait first')
            firsts.append((s['first_seconds'], tile))
    for tile in '128', '192', 'auto':
        took = [t for t, name in firsts if name == tile]
        rows.append(('slider at rest to the first complete frame, tiles %s' % tile, '%.2f s' % statistics.median(took),
                     'under 2 s'))
    rows.insert(3, ('slider to plan, longest of %d' % len(plans), '%.0f ms' % (1e3 * max(plans)), 'under 50 ms'))
    w.do('set tile auto')
    w.do('wait idle')
    rows += decoded(w)
    w.do('wait seconds 6')
    before, began = w.spent(), time.monotonic()
    time.sleep(3)
    rows.append(('processor time when idle', '%.1f%%' % (100 * (w.spent() - before) / (time.monotonic() - began)), 'near 0'))
    status = w.close()
    print('view: %s, rough picture after opening: %s' % (o.size, 'yes' if first['rough'] else 'no'))
    for name, value, goal in rows:
        print('  %-58s %10s   %s' % (name, value, goal and 'goal: ' + goal))
    return status


if __name__ == '__main__':
    raise SystemExit(main())
