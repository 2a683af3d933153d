"""Small recordings of a fleet, a pool without processes, and what reports say."""

from __future__ import annotations

from concurrent.futures import Future
import json
from pathlib import Path

from bag_fixtures import image, START_NS, write_mcap
from checkpoints import make_checkpoint
import numpy as np
import yaml

from marigold_ros.evaluation.fleet.tasks import run_task, Task
from marigold_ros.evaluation.policies.latency import FrameCost, LatencyTable

HEIGHT, WIDTH, PERIOD_NS = 48, 64, 10 ** 8
IMAGE, DEPTH = '/image', '/depth'
# Of the bags of a fleet; the long one has three parts.
FRAMES = {'short': 5, 'long': 30}
RATE_HZ = 10 ** 9 // PERIOD_NS
# What depends on the machine, the time or the place, and not on the data.
OF_THE_RUN = ('environment', 'timing', 'command', 'latency_table')


def write_recording(path: Path, frames: int, seed: int) -> Path:
    """Write an MCAP file of a box that moves in front of a wall, with 10 frames per second."""
    texture = np.random.default_rng(seed).uniform(0.5, 1, (HEIGHT, WIDTH, 3))
    messages = []
    for number in range(frames):
        depth_m = np.full((HEIGHT, WIDTH), 4.0, np.float32)
        depth_m[8:30, 5 + number % 30:35 + number % 30] = 1.5
        rgb = (60 * depth_m[..., None] * texture).astype(np.uint8)
        at = number * PERIOD_NS
        messages += [(topic, 'sensor_msgs/msg/Image', at, image(pixels, encoding, START_NS + at))
                     for topic, pixels, encoding in ((IMAGE, rgb, 'rgb8'),
                                                     (DEPTH, depth_m, '32FC1'))]
    return write_mcap(path, messages, chunk_size=20_000)


def write_fleet(folder: Path, frames: dict[str, int], **settings: object) -> Path:
    """Write bags of so many frames, a random checkpoint, a latency table and their list."""
    folder.mkdir(exist_ok=True)
    make_checkpoint(folder / 'checkpoint')
    cost = FrameCost(0.005, 0.02, 0.03, 0.015, 0.004, 0.001, 0.002)
    LatencyTable({'made': 'by hand'}, {(HEIGHT, WIDTH): [cost]}, '2020-01-01').save(
        folder / 'table.json')
    for seed, (name, count) in enumerate(frames.items()):
        write_recording(folder / f'{name}.mcap', count, seed)
    return write_list(folder, [{'name': name, 'bag': f'{name}.mcap'} for name in frames],
                      **settings)


def write_list(folder: Path, recordings: list[dict[str, object]], file: str = 'list.yaml',
               **settings: object) -> Path:
    """Write a list of recordings, with parts of at most 1 s."""
    path = folder / file
    path.write_text(yaml.safe_dump({
        'chunk_s': 1.0, 'lead_in_s': 0.3, 'defaults': {
            'checkpoint': 'checkpoint', 'latency_table': 'table.json', 'image': IMAGE,
            'depth': DEPTH, 'policies': ['novelty', 'fixed-1']},
        'recordings': recordings} | settings), encoding='utf-8')
    return path


def read_numbers(folder: Path) -> dict[str, object]:
    """Return the summary of a recording without what belongs to the run."""
    summary = json.loads((folder / 'summary.json').read_text(encoding='utf-8'))
    return {key: value for key, value in summary.items() if key not in OF_THE_RUN}


def read_states(out: Path) -> dict[str, str]:
    """Return the states of `summary.json`, by recording."""
    return {each['name']: each['state'] for each in json.loads(
        (out / 'summary.json').read_text(encoding='utf-8'))['recordings']}


class PoolWithoutProcesses:
    """Run each task in this process when it is submitted."""

    workers = 1

    def submit(self, task: Task) -> Future[object]:
        """Return the finished task."""
        future: Future[object] = Future()
        future.set_result(run_task(task, lambda done: None))
        return future

    def progress(self, future: Future[object]) -> int:
        """Return how many frames are done; nobody asks."""
        return 0

    def limit_memory(self, task_bytes: int) -> None:
        """Use the memory of this process."""

    def close(self) -> None:
        """Leave this process running."""
