"""Checks that reject a reference: unit, clock, frozen content, and residual of the fit."""

from __future__ import annotations

from typing import Any, TYPE_CHECKING
import zlib

import cv2
import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError
from marigold_ros.metric.fit import MAX_RESIDUAL, ScaleFit

if TYPE_CHECKING:
    from marigold_ros.depth.types import RgbImage

# Wider than the depth range of any robot, narrower than the factor of 1000 between m and mm.
PLAUSIBLE_MEDIAN_M = (0.05, 200.0)
# No scene changes its depth by this factor from one reference to the next; m and mm differ by
# 1000.
UNIT_JUMP_FACTOR = 30.0
# A real sensor never measures the same bits twice, but a simulated one does while nothing moves.
# So unchanged content counts as frozen only if the image has changed by this mean difference, in
# grey levels of 255.
FROZEN_CONTENT_S, IMAGE_CHANGE_LEVELS = 1.0, 3.0
# A stamp that stays the same for so long, while messages arrive, comes from a stopped clock.
FROZEN_STAMP_S = 1.0
THUMBNAIL_SIZE = (32, 24)  # width, height, px


class WrongContentError(InputError):
    """What a reference says is wrong, and so may be what it has said before."""


def check_unit(depth_m: NDArray[np.float32]) -> None:
    """
    Check that the depths of the anchors can be in metres.

    Raises
    ------
    WrongContentError
        If their median lies outside `PLAUSIBLE_MEDIAN_M`.
    """
    median_m = float(np.median(depth_m))
    low, high = PLAUSIBLE_MEDIAN_M
    if not low <= median_m <= high:
        raise WrongContentError(
            f'the median depth of the reference must be between {low} and {high:g} m; got '
            f'{median_m:.4g} m: check whether the sensor publishes millimetres as metres, or '
            'metres as millimetres')


def check_unit_jump(depth_m: NDArray[np.float32], expected_m: NDArray[np.float32]) -> None:
    """
    Check that anchors [n] are not far from the depth by the last scale, as after a change of unit.

    Raises
    ------
    WrongContentError
        If their median ratio is `UNIT_JUMP_FACTOR` or more, or its inverse or less.
    """
    known = np.isfinite(expected_m) & (expected_m > 0.0)
    if not known.any():
        return
    ratio = float(np.median(depth_m[known] / expected_m[known]))
    if not 1 / UNIT_JUMP_FACTOR < ratio < UNIT_JUMP_FACTOR:
        raise WrongContentError(f'the depth of the reference jumped to {ratio:.3g} times the '
                                'previous depth: check whether its unit changed')


def check_residual(fit: ScaleFit) -> None:
    """
    Check that the relative depth fits the reference.

    Raises
    ------
    InputError
        If the residual is `MAX_RESIDUAL` or more.
    """
    if fit.residual >= MAX_RESIDUAL:
        raise InputError('the relative depth does not fit the reference: the mean relative error '
                         f'must be below {100 * MAX_RESIDUAL:.0f} %; got '
                         f'{100 * fit.residual:.0f} %')


def check_clock(image_stamp_ns: int, reference_stamp_ns: int, received_apart_s: float,
                unchanged_stamp_s: float, hold_s: float) -> None:
    """
    Check whether a wrong clock is why the newest reference is not close in time to the image.

    Parameters
    ----------
    image_stamp_ns, reference_stamp_ns : int
        Stamps that differ by more than `hold_s`, ns.
    received_apart_s : float
        Time between the receipts of the two messages on the steady clock, s.
    unchanged_stamp_s : float
        How long references with the same stamp have been arriving, s.
    hold_s : float
        Largest time difference at which a reference is used for an image, s.

    Raises
    ------
    InputError
        If the reference's stamp does not change, or the two messages arrived together.
    """
    if unchanged_stamp_s > FROZEN_STAMP_S:
        raise InputError('the reference is frozen: its messages have had the same stamp for '
                         f'{unchanged_stamp_s:.1f} s')
    if abs(received_apart_s) <= hold_s:
        apart_s = (image_stamp_ns - reference_stamp_ns) * 1e-9
        raise InputError(
            'the clocks of camera and reference disagree: the reference arrived with the image, '
            f'but its stamp is {abs(apart_s):.1f} s {"before" if apart_s > 0 else "after"} '
            "the image's")


class FrozenContentCheck:
    """Detect a reference whose content stays the same while the camera's image changes."""

    def __init__(self) -> None:
        """Start without a reference."""
        self._content_hash = -1
        self._since_ns = 0
        self._thumbnail: NDArray[np.float32] | None = None

    def check(self, content: bytes | memoryview, stamp_ns: int, rgb: RgbImage) -> None:
        """
        Check a reference against the image that it is used for.

        Parameters
        ----------
        content : bytes
            The serialized message without its header.
        stamp_ns : int
            Stamp of the reference, ns.
        rgb : uint8 [H, W, 3]

        Raises
        ------
        WrongContentError
            If the content has not changed for `FROZEN_CONTENT_S` by its stamps, while the image
            has.
        """
        thumbnail = _grey_thumbnail(rgb)
        content_hash = zlib.crc32(content)
        if content_hash != self._content_hash or self._thumbnail is None:
            self._content_hash, self._since_ns = content_hash, stamp_ns
            self._thumbnail = thumbnail
            return
        frozen_s = (stamp_ns - self._since_ns) * 1e-9
        change = float(np.mean(np.abs(thumbnail - self._thumbnail)))
        if frozen_s >= FROZEN_CONTENT_S and change > IMAGE_CHANGE_LEVELS:
            raise WrongContentError('the reference is frozen: its content has not changed for '
                                    f'{frozen_s:.1f} s, while the image has')


def _grey_thumbnail(rgb: RgbImage) -> NDArray[np.float32]:
    small: NDArray[Any] = np.asarray(cv2.resize(rgb, THUMBNAIL_SIZE,
                                                interpolation=cv2.INTER_AREA))
    return np.asarray(small.mean(axis=-1), np.float32)
