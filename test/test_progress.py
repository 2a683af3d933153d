"""Progress bars on a terminal, and silence elsewhere."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

ROOT = Path(__file__).parents[1]
EVALUATE = ('-m', 'marigold_ros.evaluation.evaluate', 'bag', 'sample/living_room',
            '--image', '/camera/image_raw', '--depth', '/camera/depth_gt/image_rect',
            '--policies', 'fixed-1', '--max-frames', '3', '--out')


def errors_on_a_terminal(*arguments):
    """Run Python with stderr on a terminal; return what comes there."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('4H', 24, 100, 0, 0))
    process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stderr=slave,
                               stdout=subprocess.DEVNULL)
    os.close(slave)
    output = b''
    while True:
        try:
            chunk = os.read(master, 4096)
        except OSError:  # as Linux says that the other end is closed
            break
        output += chunk
    os.close(master)
    assert process.wait() == 0, output
    return output.decode()


def test_evaluate_shows_the_remaining_time_on_a_terminal_only(tmp_path):
    shown = errors_on_a_terminal(*EVALUATE, str(tmp_path))
    for bar in ('bag living_room', 'latency table', 'comparison', 'report'):
        assert re.search(rf'{bar}: 100%.* \d+/\d+ \[\d\d:\d\d<\d\d:\d\d, ', shown)
    piped = subprocess.run([sys.executable, *EVALUATE, str(tmp_path)], cwd=ROOT, check=True,
                           capture_output=True, text=True)
    assert '3/3' not in piped.stderr


@pytest.mark.parametrize('hidden', ['disable=True', 'hide_progress_bars()'])
def test_a_bar_can_be_hidden(hidden):
    program = ('from marigold_ros.progress import *\n'
               f'{hidden if "()" in hidden else ""}\n'
               f'list(progress_bar(range(3), {hidden if "=" in hidden else ""}))\n')
    assert errors_on_a_terminal('-c', program) == ''
    program = 'from marigold_ros.progress import *\nlist(progress_bar(range(3)))\n'
    assert '3/3' in errors_on_a_terminal('-c', program)


def test_every_bar_is_made_in_one_place():
    """So that each is quiet where nobody watches."""
    users = [path for folder in ('marigold_ros', 'benchmarks', 'scenes')
             for path in (ROOT / folder).rglob('*.py')
             if re.search(r'^\s*(from|import) tqdm', path.read_text(), re.MULTILINE)]
    assert [path.name for path in users] == ['progress.py']
