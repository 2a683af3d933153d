"""Notice a reference that freezes: a driver that sends its last measurement for ever."""

from __future__ import annotations

from typing import Any, TYPE_CHECKING
import zlib

import cv2
import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError

if TYPE_CHECKING:
    from marigold_ros.depth.types import RgbImage

# A real sensor never measures the same bits twice; one in a simulator does while nothing moves.
# So content counts as frozen once the image has changed by this much, in grey levels of 255.
FROZEN_S, CHANGED_LEVELS = 1.0, 3.0
THUMBNAIL = (32, 24)


class FreezeWatch:
    """Compare the content of one camera's references with what the image shows meanwhile."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._content = -1
        self._since_ns = 0
        self._view: NDArray[np.float32] | None = None

    def check(self, content: bytes | memoryview, stamp_ns: int, rgb: RgbImage) -> None:
        """
        Look at a reference and the image that it is to serve.

        Parameters
        ----------
        content : bytes
            The message behind its header.
        stamp_ns : int
            Of the reference, ns.
        rgb : uint8 [H, W, 3]

        Raises
        ------
        InputError
            If the content has not changed for `FROZEN_S` by its stamps, while the image has.
        """
        view = _thumbnail(rgb)
        content_hash = zlib.crc32(content)
        if content_hash != self._content or self._view is None:
            self._content, self._since_ns, self._view = content_hash, stamp_ns, view
            return
        frozen_s = (stamp_ns - self._since_ns) * 1e-9
        changed = float(np.mean(np.abs(view - self._view)))
        if frozen_s >= FROZEN_S and changed > CHANGED_LEVELS:
            raise InputError(f'the reference freezes: its content has not changed for '
                             f'{frozen_s:.1f} s, while the image has')


def _thumbnail(rgb: RgbImage) -> NDArray[np.float32]:
    small: NDArray[Any] = np.asarray(cv2.resize(rgb, THUMBNAIL, interpolation=cv2.INTER_AREA))
    return np.asarray(small.mean(axis=-1), np.float32)
