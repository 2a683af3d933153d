"""
Measured latency of a frame by stage; later evaluations sample from it to be repeatable.

A table is JSON::

    {"machine": {"device": "cpu", "dtype": "torch.bfloat16", ...}, "measured_utc": "...",
     "sizes": {"96x128": [{"preprocess_s": 0.001, "encode_s": 0.004, "step_s": 0.009,
                           "decode_s": 0.006, "postprocess_s": 0.001,
                           "complexity_s": 0.005, "carry_s": 0.002}, ...]}}

`sizes` maps the padded processing size (PPH x PPW) to samples of one frame each.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
import json
import math
from pathlib import Path
import time
from typing import Any, TYPE_CHECKING

import numpy as np

from marigold_ros.depth.carry import DepthCarrier
from marigold_ros.depth.complexity import complexity_share, reduce_to_grey
from marigold_ros.depth.errors import InputError
from marigold_ros.depth.types import BatchTiming, RgbImage, StageTiming
from marigold_ros.files import write_atomically
from marigold_ros.progress import progress_bar

if TYPE_CHECKING:
    from marigold_ros.depth.engine import DepthEngine

# Enough samples for a p95; fewer if they take longer than the budget, as with 50 steps and an
# ensemble of ten.
SAMPLES, MIN_SAMPLES, BUDGET_S = 40, 3, 20.0
WARM_UP = 3
# Between two images, to measure carrying, in each direction.
MOTION_PX = 4

Size = tuple[int, int]


@dataclass(frozen=True)
class FrameCost:
    """
    Time of one frame in each stage, s.

    Attributes
    ----------
    preprocess_s, encode_s, decode_s, postprocess_s : float
    step_s : float
        One denoising step.
    complexity_s : float
        Finding what is new, and its complexity C.
    carry_s : float
        Moving depth along, and resizing it to the image.
    """

    preprocess_s: float
    encode_s: float
    step_s: float
    decode_s: float
    postprocess_s: float
    complexity_s: float
    carry_s: float

    def total_s(self, num_inference_steps: int) -> float:
        """Return the computing time of a frame with T steps, of which the networks' is beside."""
        return self.complexity_s + self.carry_s + self.network_s(num_inference_steps)

    def network_s(self, num_inference_steps: int) -> float:
        """Return the time of the networks with T steps, and of what surrounds them; 0 if T is."""
        return self.timing(num_inference_steps).total_s if num_inference_steps else 0.0

    def timing(self, num_inference_steps: int) -> StageTiming:
        """Return the time of each stage of the networks with T steps."""
        return StageTiming(self.preprocess_s, self.encode_s, num_inference_steps * self.step_s,
                           self.decode_s, self.postprocess_s)


class LatencyTable:
    """
    Samples of the cost of a frame, by padded processing size.

    Parameters
    ----------
    machine : dict of str to str
        Hardware and settings; a table is reused only if all of them are equal.
    samples : dict of (int, int) to list of FrameCost
    measured_utc : str
    """

    def __init__(self, machine: dict[str, str],
                 samples: dict[Size, list[FrameCost]] | None = None,
                 measured_utc: str | None = None) -> None:
        self.machine = machine
        self.samples = {} if samples is None else samples
        self.measured_utc = (measured_utc or
                             datetime.now(timezone.utc).isoformat(timespec='seconds'))

    def sample(self, size: Size, frame: int) -> FrameCost:
        """
        Sample the cost of a frame; a frame has the same cost with every policy.

        Parameters
        ----------
        size : (int, int)
            A measured size.
        frame : int
            Number of the frame, which seeds the choice.
        """
        samples = self.samples[size]
        return samples[int(np.random.default_rng(frame).integers(len(samples)))]

    def median(self, size: Size) -> FrameCost:
        """Return the median of every stage."""
        samples = np.array([list(asdict(cost).values()) for cost in self.samples[size]])
        return FrameCost(*np.median(samples, axis=0).tolist())

    def typical_timing(self, size: Size, num_inference_steps: int) -> BatchTiming:
        """Return the median cost of a frame with T steps as the step policy observes it."""
        return BatchTiming.from_stages(size, [num_inference_steps],
                                       self.median(size).timing(num_inference_steps))

    def measure(self, engine: DepthEngine, rgb: RgbImage, num_inference_steps: int,
                ensemble_size: int) -> None:
        """
        Measure the cost at the size of an image, unless the table has that size.

        Parameters
        ----------
        engine : DepthEngine
        rgb : uint8 [H, W, 3]
        num_inference_steps : int
            T of the measured inferences.
        ensemble_size : int
        """
        size = engine.padded_size(*rgb.shape[:2])
        if size in self.samples:
            return
        costs: list[FrameCost] = []
        started_s = time.perf_counter()
        for number in progress_bar(range(-WARM_UP, SAMPLES), 'latency table', unit='run'):
            complexity_s, carry_s = _time_carrying(rgb, engine)
            timing = engine.infer_batch([rgb], [num_inference_steps], upsample=False,
                                        ensemble_size=ensemble_size)[0].timing
            if number >= 0:
                costs.append(FrameCost(
                    timing.preprocess_s, timing.encode_s, timing.denoise_s / num_inference_steps,
                    timing.decode_s, timing.postprocess_s, complexity_s, carry_s))
            if len(costs) >= MIN_SAMPLES and time.perf_counter() - started_s > BUDGET_S:
                break
        self.samples[size] = costs

    def save(self, path: Path) -> None:
        """Write the table as JSON."""
        content = {'machine': self.machine, 'measured_utc': self.measured_utc,
                   'sizes': {f'{height}x{width}': [asdict(cost) for cost in costs]
                             for (height, width), costs in sorted(self.samples.items())}}
        write_atomically(path, (json.dumps(content, indent=1) + '\n').encode())

    @classmethod
    def load(cls, path: Path) -> LatencyTable:
        """
        Read a table from JSON.

        Raises
        ------
        InputError
            If the file cannot be read or is not a latency table.
        """
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
            samples = {_parse_size(name): [_parse_cost(each) for each in costs]
                       for name, costs in content['sizes'].items()}
            if not all(samples.values()):
                raise ValueError('a size has no samples')
            return cls(dict(content['machine']), samples, str(content['measured_utc']))
        except OSError as err:
            raise InputError(f'`latency_table` must be a readable file; got {str(path)!r}: '
                             f'{err.strerror}') from err
        except (ValueError, TypeError, KeyError, AttributeError) as err:
            raise InputError(f'{path} must be a latency table written by `evaluate`: '
                             f'{type(err).__name__}: {err}') from err


def _time_carrying(rgb: RgbImage, engine: DepthEngine) -> tuple[float, float]:
    """Measure how long it takes to find what is new in an image, and to carry depth into it."""
    last = reduce_to_grey(np.roll(rgb, MOTION_PX, axis=(0, 1)))
    carrier, size = DepthCarrier(last), engine.padded_size(*rgb.shape[:2])
    ramp = np.ascontiguousarray(
        np.broadcast_to(np.linspace(0, 1, size[1], dtype=np.float32), size))
    carrier.begin_run()
    carrier.finish_run(ramp, ramp, rgb.shape[1::-1])
    started_s = time.perf_counter()
    grey = reduce_to_grey(rgb)
    carrier.advance(grey)
    complexity_share('entropy', grey, carrier.new)
    complexity_s = time.perf_counter() - started_s
    engine.upsample(carrier.carry().as_prediction(), rgb)
    return complexity_s, time.perf_counter() - started_s - complexity_s


def _parse_size(name: str) -> Size:
    height, width = name.split('x')
    return int(height), int(width)


def _parse_cost(entry: dict[str, Any]) -> FrameCost:
    cost = FrameCost(**{field.name: float(entry[field.name]) for field in fields(FrameCost)})
    if not all(math.isfinite(value) and value >= 0 for value in asdict(cost).values()):
        raise ValueError(f'costs must be finite and at least 0; got {entry}')
    return cost
