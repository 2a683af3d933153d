"""What refuses a reference: its unit, its clock, its content, or depth that does not fit."""

from __future__ import annotations

from typing import Any, TYPE_CHECKING
import zlib

import cv2
import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError
from marigold_ros.metric.fit import ScaleFit, USELESS_RESIDUAL

if TYPE_CHECKING:
    from marigold_ros.depth.types import RgbImage

# Wider than any robot's world, narrower than the factor of 1000 between the usual units.
PLAUSIBLE_M = (0.05, 200.0)
# No scene grows by this factor between two looks; mistaken units differ by 1000.
UNIT_JUMP = 30.0
# A real sensor never measures the same bits twice; one in a simulator does while nothing moves.
# So content counts as frozen once the image has changed by this much, in grey levels of 255.
FROZEN_S, CHANGED_LEVELS = 1.0, 3.0
# A stamp that stands still for so long, while messages arrive, is a clock that stands still.
FROZEN_STAMP_S = 1.0
THUMBNAIL = (32, 24)


def check_unit(depth_m: NDArray[np.float32]) -> None:
    """
    Refuse anchors that cannot be metres.

    Raises
    ------
    InputError
        If their median lies outside `PLAUSIBLE_M`.
    """
    median_m = float(np.median(depth_m))
    low, high = PLAUSIBLE_M
    if not low <= median_m <= high:
        raise InputError(f'the median depth of the reference must lie between {low} and {high:g} '
                         f'm; got {median_m:.4g}: millimetres called metres, or metres called '
                         'millimetres?')


def check_unit_jump(fit: ScaleFit, scale: float, shift: float) -> None:
    """
    Refuse a fit that differs from the known scale and shift (m) as only units do.

    Raises
    ------
    InputError
        If the middle depth changes by `UNIT_JUMP` or more.
    """
    ratio = (fit.scale / 2 + fit.shift) / (scale / 2 + shift)
    if not 1 / UNIT_JUMP < ratio < UNIT_JUMP:
        raise InputError(f'the reference says {ratio:.3g} times the depth that it said before: '
                         'did its unit change?')


def check_residual(fit: ScaleFit) -> None:
    """
    Refuse a fit that says nothing.

    Raises
    ------
    InputError
        From a residual of `USELESS_RESIDUAL` on.
    """
    if fit.residual >= USELESS_RESIDUAL:
        raise InputError('the relative depth does not fit the reference: the mean error is '
                         f'{100 * fit.residual:.0f} %')


def check_clock(image_stamp_ns: int, reference_stamp_ns: int, received_apart_s: float,
                stamp_stands_s: float, hold_s: float) -> None:
    """
    Refuse the newest reference, which is not of the image's time, if its clock is wrong.

    Parameters
    ----------
    image_stamp_ns, reference_stamp_ns : int
    received_apart_s : float
        Between the receipts of the two, on the steady clock.
    stamp_stands_s : float
        For how long references of one and the same stamp have been arriving.
    hold_s : float
        From how far apart two times are not the same.

    Raises
    ------
    InputError
        If the stamps stand still, or the reference arrived with the image.
    """
    if stamp_stands_s > FROZEN_STAMP_S:
        raise InputError('the reference freezes: messages arrive, but all with one stamp for '
                         f'{stamp_stands_s:.1f} s')
    if abs(received_apart_s) <= hold_s:
        apart_s = (image_stamp_ns - reference_stamp_ns) * 1e-9
        raise InputError(
            'the clocks disagree: the reference arrived with the image and is stamped '
            f'{abs(apart_s):.1f} s {"before" if apart_s > 0 else "after"} it')


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
