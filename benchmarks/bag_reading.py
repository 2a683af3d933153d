"""
Is a long bag read in bounded memory, and as fast as the engine runs?

    python -m benchmarks.bag_reading --bag long_bag --minutes 10

If the bag does not exist it is written: raw VGA images and 16UC1 depth at 30 Hz, repeating the
frames of sample/living_room.

Rate: the engine runs at T = 1 on frames in memory, and on as many frames read ahead from the bag,
in interleaved rounds; medians.  The bag is opened once before; the time to its first frame is
reported.  Memory: then the whole bag is read ahead without keeping frames.  The value reported is
the peak resident set of the process, including torch and the weights of the engine.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path
import resource
import sys
import time

import numpy as np

from benchmarks.timing import speedup, time_interleaved, write_benchmark_report
from marigold_ros.data.bags.bag_frames import BagTopics
from marigold_ros.data.bags.messages import IMAGE, serialize_image, STORE
from marigold_ros.data.bags.writer import BagWriter
from marigold_ros.data.datasets.bag import bag_data_set
from marigold_ros.data.datasets.data_set import DataSet
from marigold_ros.data.frames import DepthFrame
from marigold_ros.data.read_ahead import read_ahead
from marigold_ros.depth.config import require
from marigold_ros.depth.engine import DepthEngine
from marigold_ros.depth.errors import MarigoldError
from marigold_ros.evaluation.environment import describe_environment
from marigold_ros.messages.depth import pack_depth
from marigold_ros.messages.image import pack_image
from marigold_ros.progress import progress_bar

SAMPLE = Path(__file__).parents[1] / 'sample' / 'living_room'
TOPICS = BagTopics('/camera/image_rect', '/camera/depth/image_rect')
HZ = 30
ROUNDS, WARM_UP = 5, 1
FRAMES_IN_MEMORY = 10


def write_long_bag(path: Path, minutes: float, hz: int = HZ) -> None:
    """Write frames of the sample bag repeatedly, as raw images."""
    frames = [(pack_image(frame.rgb, 'rgb8'),
               pack_depth(frame.depth_m, '16UC1'))
              for frame in islice(bag_data_set(SAMPLE).frames(), 0, None, 8)]
    with BagWriter(path) as writer:
        for topic in (TOPICS.image, TOPICS.depth):
            writer.add_topic(topic, IMAGE, typestore=STORE)
        count = round(minutes * 60 * hz)
        for number, pair in progress_bar(zip(range(count), cycle(frames)), 'write', total=count):
            stamp_ns = number * 10 ** 9 // hz
            for topic, fields in zip((TOPICS.image, TOPICS.depth), pair):
                writer.write(topic, stamp_ns, serialize_image(stamp_ns, 'camera', fields))


def read_through(data_set: DataSet) -> tuple[int, float]:
    """Read all frames ahead without keeping them; return their number and the time, s."""
    started_s = time.perf_counter()
    count = sum(1 for _ in progress_bar(read_ahead(data_set.frames()), 'read',
                                        data_set.count))
    return count, time.perf_counter() - started_s


def compare_rates(engine: DepthEngine, data_set: DataSet,
                  count: int) -> tuple[dict[str, float], dict[str, float], float]:
    """
    Time the engine on frames from memory and on frames from the bag, in interleaved rounds.

    Returns
    -------
    median_hz : dict of str to float
    share : dict of str to float
        Rate with reading relative to the rate from memory, from `speedup`.
    first_s : float
        Time until the first frame of the bag, s.

    Raises
    ------
    ConfigError
        If the bag holds too few frames.
    """
    in_memory = list(islice(data_set.frames(), FRAMES_IN_MEMORY))

    def run(frames: Iterable[DepthFrame]) -> None:
        for frame in frames:
            engine.infer(frame.rgb, num_inference_steps=1)

    def run_from_memory() -> None:
        run(islice(cycle(in_memory), count))

    require((data_set.count or 0) > (ROUNDS + WARM_UP) * count, 'frames',
            f'few enough for {ROUNDS + WARM_UP} rounds in {data_set.count} frames', count)
    with closing(read_ahead(data_set.frames())) as frames:
        started_s = time.perf_counter()
        next(frames)
        first_s = time.perf_counter() - started_s
        runs = time_interleaved({'memory': run_from_memory,
                                 'read': lambda: run(islice(frames, count))},
                                rounds=ROUNDS, warm_up=WARM_UP, device=engine.device)
    seconds = {name: each.seconds for name, each in runs.items()}
    return ({name: count / float(np.median(each)) for name, each in seconds.items()},
            speedup(seconds['memory'], seconds['read']), first_s)


def measure(options: argparse.Namespace) -> None:
    """Measure and write the report."""
    if not options.bag.exists():
        write_long_bag(options.bag, options.minutes)
    engine = DepthEngine.load(options.checkpoint)
    facts = describe_environment(engine.device)
    data_set = bag_data_set(options.bag, TOPICS)
    median_hz, share, first_s = compare_rates(engine, data_set, options.frames)
    before_mib = _peak_mib()
    count, seconds = read_through(data_set)
    bag_bytes = sum(file.stat().st_size for file in options.bag.iterdir())
    write_benchmark_report(options.out, 'bag_reading', facts, {
        'bag_bytes': bag_bytes, 'frames': count, 'read_s': seconds,
        'peak_before_mib': before_mib, 'peak_mib': _peak_mib(), 'median_hz': median_hz,
        'share_of_engine_rate': share, 'first_frame_s': first_s},
        f'- {count} frames, {bag_bytes / 2 ** 30:.1f} GiB, read in {seconds:.0f} s '
        f'({count / seconds:.0f} Hz); peak {_peak_mib():.0f} MiB, of which {before_mib:.0f} MiB '
        f'before\n'
        f'- the engine alone {median_hz["memory"]:.2f} Hz, reading ahead {median_hz["read"]:.2f} '
        f'Hz: {share["ratio"]:.0%} of its rate [{share["low"]:.0%}, {share["high"]:.0%}]; the '
        f'first frame came after {first_s:.2f} s')


def _peak_mib() -> float:
    """Return the peak resident set, MiB; Linux reports it in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--bag', type=Path, required=True, help='folder; written if missing')
    parser.add_argument('--minutes', type=float, default=10.0, help='length of a new bag')
    parser.add_argument('--frames', type=int, default=60, help='frames per round')
    parser.add_argument('--checkpoint', default='tiny', help='embedded name, folder or hub id')
    parser.add_argument('--out', type=Path, default=Path('out/benchmarks'))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the report; the exit code is 0 or 2."""
    try:
        measure(make_parser().parse_args(arguments))
    except MarigoldError as err:
        print(f'bag_reading: {err}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
