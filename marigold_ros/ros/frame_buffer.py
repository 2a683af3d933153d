"""Buffer of the newest frame of every camera; a newer frame supersedes a waiting one."""

from __future__ import annotations

from dataclasses import dataclass
import threading


@dataclass(frozen=True)
class ReceivedFrame:
    """
    A serialized image message from the middleware.

    Attributes
    ----------
    camera : str
    message : bytes
        CDR of a sensor_msgs/Image, or CompressedImage if `compressed`.
    compressed : bool
    stamp_ns : int
        Stamp of the header, ns.
    frame_id : str
    received_s : float
        time.monotonic() at receipt.
    """

    camera: str
    message: bytes
    compressed: bool
    stamp_ns: int
    frame_id: str
    received_s: float


class NewestFrames:
    """Buffer of one frame per camera; one thread puts and another takes."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._frames: dict[str, ReceivedFrame] = {}

    def put(self, frame: ReceivedFrame) -> ReceivedFrame | None:
        """Store a camera's newest frame and return the one that it supersedes, if any."""
        with self._lock:
            superseded = self._frames.get(frame.camera)
            self._frames[frame.camera] = frame
            return superseded

    def take(self) -> list[ReceivedFrame]:
        """Return the newest frame of every camera that has one, and remove it from the buffer."""
        with self._lock:
            frames = list(self._frames.values())
            self._frames.clear()
            return frames
