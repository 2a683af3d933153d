"""
What a frame costs on a machine, measured once and then drawn from, so that runs can be repeated.

A table is JSON::

    {"machine": {"device": "cpu", "dtype": "torch.bfloat16", ...}, "measured_utc": "...",
     "sizes": {"96x128": [{"preprocess_s": 0.001, "encode_s": 0.004, "step_s": 0.009,
                           "decode_s": 0.006, "postprocess_s": 0.001, "choose_s": 0.0004}, ...]}}

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

from marigold_ros.depth.complexity import MEASURES
from marigold_ros.depth.errors import InputError
from marigold_ros.depth.types import BatchTiming, RgbImage

if TYPE_CHECKING:
    from marigold_ros.depth.engine import DepthEngine

# So many samples tell a p95; where they take longer than the budget, as with 50 steps and ten
# members, a few must do.
SAMPLES, MIN_SAMPLES, BUDGET_S = 40, 3, 20.0
WARM_UP = 3

Size = tuple[int, int]


@dataclass(frozen=True)
class FrameCost:
    """
    Seconds that one frame takes in each stage.

    Attributes
    ----------
    preprocess_s, encode_s, decode_s, postprocess_s : float
    step_s : float
        One denoising step.
    choose_s : float
        C by one measure, which depth_node computes whatever its policy.
    """

    preprocess_s: float
    encode_s: float
    step_s: float
    decode_s: float
    postprocess_s: float
    choose_s: float

    def total_s(self, num_inference_steps: int) -> float:
        """From the decision to the depth, after T steps."""
        return self.before_s + num_inference_steps * self.step_s + self.after_s

    @property
    def before_s(self) -> float:
        """Ahead of the first step."""
        return self.choose_s + self.preprocess_s + self.encode_s

    @property
    def after_s(self) -> float:
        """Behind the last step."""
        return self.decode_s + self.postprocess_s

    def timing(self, size: Size, num_inference_steps: int) -> BatchTiming:
        """Tell the step policy what the frame has cost."""
        return BatchTiming(size, (num_inference_steps,), self.before_s,
                           num_inference_steps * self.step_s, self.after_s)


class LatencyTable:
    """
    Samples of what a frame costs, by padded processing size.

    Parameters
    ----------
    machine : dict of str to str
        What the costs depend on; a table is used again only where all of it is the same.
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

    def draw(self, size: Size, frame: int) -> FrameCost:
        """
        Give what a frame costs: always the same sample for the same frame, whatever the policy.

        Parameters
        ----------
        size : (int, int)
            One that was measured.
        frame : int
            Its number.
        """
        samples = self.samples[size]
        return samples[int(np.random.default_rng(frame).integers(len(samples)))]

    def typical(self, size: Size) -> FrameCost:
        """Return the median of every stage."""
        samples = np.array([list(asdict(cost).values()) for cost in self.samples[size]])
        return FrameCost(*np.median(samples, axis=0).tolist())

    def measure(self, engine: DepthEngine, rgb: RgbImage, num_inference_steps: int,
                ensemble_size: int) -> None:
        """
        Add the size of an image, unless it is known.

        Parameters
        ----------
        engine : DepthEngine
        rgb : uint8 [H, W, 3]
        num_inference_steps : int
            T of the runs, from which the cost of a step is taken.
        ensemble_size : int
        """
        size = engine.padded_size(*rgb.shape[:2])
        if size in self.samples:
            return
        costs: list[FrameCost] = []
        started_s = time.perf_counter()
        for number in range(-WARM_UP, SAMPLES):
            choosing_s = time.perf_counter()
            for measure in MEASURES.values():
                measure(rgb)
            choose_s = (time.perf_counter() - choosing_s) / len(MEASURES)
            timing = engine.infer(rgb, num_inference_steps=num_inference_steps,
                                  ensemble_size=ensemble_size).timing
            if number >= 0:
                costs.append(FrameCost(
                    timing.preprocess_s, timing.encode_s, timing.denoise_s / num_inference_steps,
                    timing.decode_s, timing.postprocess_s, choose_s))
            if len(costs) >= MIN_SAMPLES and time.perf_counter() - started_s > BUDGET_S:
                break
        self.samples[size] = costs

    def save(self, path: Path) -> None:
        """Write the table."""
        content = {'machine': self.machine, 'measured_utc': self.measured_utc,
                   'sizes': {f'{height}x{width}': [asdict(cost) for cost in costs]
                             for (height, width), costs in sorted(self.samples.items())}}
        path.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')

    @classmethod
    def load(cls, path: Path) -> LatencyTable:
        """
        Read a table.

        Raises
        ------
        InputError
            If the file cannot be read or is no latency table.
        """
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
            samples = {_size(name): [_cost(each) for each in costs]
                       for name, costs in content['sizes'].items()}
            if not all(samples.values()):
                raise ValueError('a size without samples')
            return cls(dict(content['machine']), samples, str(content['measured_utc']))
        except OSError as err:
            raise InputError(f'`latency_table` must be a readable file; got {str(path)!r}: '
                             f'{err.strerror}') from err
        except (ValueError, TypeError, KeyError, AttributeError) as err:
            raise InputError(f'{path} must be a latency table as `evaluate` writes it: '
                             f'{type(err).__name__}: {err}') from err


def _size(name: str) -> Size:
    height, width = name.split('x')
    return int(height), int(width)


def _cost(entry: dict[str, Any]) -> FrameCost:
    cost = FrameCost(**{field.name: float(entry[field.name]) for field in fields(FrameCost)})
    if not all(math.isfinite(value) and value >= 0 for value in asdict(cost).values()):
        raise ValueError(f'costs must be finite and at least 0; got {entry}')
    return cost
