"""The folder that a training leaves behind: recipe, versions, scalars, state, checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
import json
from pathlib import Path
import platform
import signal
import threading
from types import FrameType

from torch.utils.tensorboard import SummaryWriter

PACKAGES = ('torch', 'diffusers', 'transformers', 'safetensors', 'numpy')


class RunFolder:
    """
    Lays out one training's folder.

    Parameters
    ----------
    path : Path
        Made if absent; an existing one is continued.
    config_yaml : str
        The recipe, written to `config.yaml`.
    """

    def __init__(self, path: Path, config_yaml: str) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / 'config.yaml').write_text(config_yaml)
        versions = {name: version(name) for name in PACKAGES}
        versions |= {'python': platform.python_version(), 'machine': platform.machine()}
        (self.path / 'versions.json').write_text(json.dumps(versions, indent=2) + '\n')
        self._scalars = SummaryWriter(str(self.path / 'tensorboard'))

    @property
    def state(self) -> Path:
        """File of the resumable state."""
        return self.path / 'state.safetensors'

    @property
    def checkpoint(self) -> Path:
        """Folder of the checkpoint that can be loaded."""
        return self.path / 'checkpoint'

    def record(self, scalars: dict[str, float], iteration: int) -> None:
        """Write scalars to TensorBoard and to `scalars.jsonl`."""
        for name, value in scalars.items():
            self._scalars.add_scalar(name, value, iteration)
        with (self.path / 'scalars.jsonl').open('a') as file:
            file.write(json.dumps({'iteration': iteration, **scalars}) + '\n')


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """Turn Ctrl-C and SIGTERM into an event, so that training saves before it ends."""
    stop = threading.Event()

    def request(number: int, frame: FrameType | None) -> None:
        stop.set()

    previous = {number: signal.signal(number, request)
                for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
