"""Sessions of parts: what leads in is not counted, and parts together give the whole."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
import json
import shutil

from checkpoints import make_checkpoint
import cv2
from fleet_fixtures import read_numbers
import numpy as np
from PIL import Image
from published_fixtures import write_layout
import pytest

from marigold_ros.data.datasets.data_set import DataSet
from marigold_ros.data.frames import DepthFrame, Part
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.evaluation.config import EvaluationConfig
from marigold_ros.evaluation.evaluate import main
from marigold_ros.evaluation.fleet.tasks import PartTask, ReportTask
from marigold_ros.evaluation.options import make_parser
from marigold_ros.evaluation.policies.latency import FrameCost, LatencyTable
from marigold_ros.evaluation.runner import EvaluationSession
from marigold_ros.stop_flag import StopFlag

HEIGHT, WIDTH = 48, 64


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return str(make_checkpoint(tmp_path_factory.mktemp('models') / 'checkpoint'))


def pictures(count):
    """Return textured images, and depth that differs from one to the next, m."""
    rng = np.random.default_rng(0)
    slope = np.linspace(0, 1, WIDTH, dtype=np.float32)
    return [(rng.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8),
             np.tile(1 + (1 + number) * slope ** (1 + number), (HEIGHT, 1)))
            for number in range(count)]


def write_folder(folder):
    """Write a folder with two sets of unequal size."""
    entries = {'desk': [], 'shelf': []}
    for number, (rgb, depth_m) in enumerate(pictures(5)):
        path = folder / ('desk' if number < 3 else 'shelf')
        path.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path / f'{number}.png'), rgb)
        cv2.imwrite(str(path / f'{number}_mm.png'), (1000 * depth_m).astype(np.uint16))
        entries[path.name].append({
            'name': str(number), 'rgb': f'{number}.png', 'depth': f'{number}_mm.png',
            'depth_unit_m': 0.001, 'rgb_size': [WIDTH, HEIGHT], 'depth_size': [WIDTH, HEIGHT],
            'K': None})
    (folder / 'frames.json').write_text(json.dumps(entries))
    return ['folder', str(folder)]


def write_published(folder):
    """Write a published set of three images of two scenes with different depth."""
    root, file_list = write_layout('nyu', folder)
    rgb, depth = file_list.read_text().split()[:2]
    lines = []
    for number, scene in enumerate(('kitchen', 'kitchen', 'office')):
        mine = [f'{scene}/{number}_{kind}.png' for kind in ('rgb', 'depth')]
        (root / scene).mkdir(exist_ok=True)
        shutil.copy(root / rgb, root / mine[0])
        depth_mm = np.asarray(Image.open(root / depth))
        depth_mm = np.roll(depth_mm, 100 * number, axis=1)
        Image.fromarray(depth_mm).save(root / mine[1])
        lines.append(' '.join([*mine, mine[1]]))
    file_list.write_text('\n'.join(lines) + '\n')
    return ['nyu', str(root), '--file-list', str(file_list), '--processing-resolution', '64']


@pytest.mark.parametrize(('write', 'frames'), [(write_folder, 5), (write_published, 3)])
def test_single_frames_in_two_parts_have_the_numbers_of_the_whole(write, frames, checkpoint,
                                                                  tmp_path):
    arguments = [*write(tmp_path / 'data'), '--checkpoint', checkpoint, '--policies', 'fixed-1',
                 '--out', str(tmp_path / 'whole')]
    assert main(arguments) == 0
    options = make_parser('evaluate', '').parse_args(arguments)
    table = LatencyTable.load(tmp_path / 'whole' / 'latency_table.json')
    parts = [PartTask(options, Part(index, 2), table)(lambda _: None).content
             for index in range(2)]
    report = ReportTask(copy(options), '', parts, table, '')(lambda _: None)
    for name in ('summary.json', 'per_frame.csv'):
        (tmp_path / name).write_bytes(report.files[name])
    whole = read_numbers(tmp_path / 'whole')
    assert read_numbers(tmp_path) == whole
    assert whole['data']['frames'] == frames
    assert ((tmp_path / 'per_frame.csv').read_text()
            == (tmp_path / 'whole' / 'per_frame.csv').read_text())


def test_frames_that_lead_in_are_left_out_wherever_they_come(checkpoint):
    """They are told by their log times, but come in the order of their stamps."""
    frames = [DepthFrame(str(number), rgb, depth_m, np.ones(depth_m.shape, bool), 'camera',
                         'second 0', 10 ** 8 * number) for number, (rgb, depth_m)
              in enumerate(pictures(5))]
    frames = [replace(frame, is_lead_in=frame.name in '02') for frame in frames]
    engine = DepthEngine.load(checkpoint, device='cpu', processing_resolution=64)
    table = LatencyTable({}, {(HEIGHT, WIDTH): [
        FrameCost(0.005, 0.02, 0.03, 0.015, 0.004, 0.001, 0.002)]})

    def run(frames):
        session = EvaluationSession(
            engine, DataSet('frames', 'second', False, lambda: iter(frames), is_sequence=True),
            EvaluationConfig(checkpoint=checkpoint, policies=('fixed-1',)), table, {})
        session.run(StopFlag(signals=()))
        return session.result

    part = run(frames)
    whole = run(frames[3:])
    whole.extend(part)
    for each in (whole.frames, *(result for results in whole.policies
                                 for result in results.values())):
        found = [getattr(frame, 'frame', frame) for frame in each]
        assert [frame.name for frame in found] == ['3', '4', '1', '3', '4']
        assert [frame.number for frame in found] == [0, 1, 2, 3, 4]
