"""Sources `depth`, `cloud` and `scan`: anchors of another sensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import math
from typing import TypeVar

import numpy as np

from marigold_ros.depth.errors import InputError
from marigold_ros.geometry.poses import (
    is_optical_frame,
    Matrix,
    optical_from_sensor,
    parse_extrinsics,
    without_slash,
)
from marigold_ros.metric.checks import check_unit, WrongContentError
from marigold_ros.metric.config import ScaleConfig
from marigold_ros.metric.known_points import HeldAnchors
from marigold_ros.metric.types import Measurement, ScaleFrame

Placed = TypeVar('Placed')


def pose_without_tf(config: ScaleConfig, source: str, camera_frame: str, reference_frame: str
                    ) -> Matrix | None:
    """
    Return the pose of the reference's frame in the camera's optical frame if it needs no TF.

    Returns
    -------
    float64 [4, 4] or None
        From the configured extrinsics, or the identity if both coordinate frames are the same;
        None if TF is needed.
    """
    extrinsics = config.extrinsics.get(source)
    if extrinsics is not None:
        return optical_from_sensor(parse_extrinsics(extrinsics),
                                   _is_optical(source, reference_frame))
    return np.eye(4) if without_slash(reference_frame) == without_slash(camera_frame) else None


def place_nearest(references: Sequence[Placed], locate: Callable[[Placed], Matrix], hold_s: float
                  ) -> tuple[Placed, Matrix]:
    """
    Find the reference that is nearest in time to an image, of those whose pose is known.

    The transforms of a moving sensor arrive later than its data, so that the pose of the nearest
    reference may not be known yet.

    Parameters
    ----------
    references : sequence
        Those within `scale.hold_s` of the image, the nearest first; not empty.
    locate : callable
        Returns the pose of a reference, or raises an InputError.
    hold_s : float

    Returns
    -------
    reference
    pose : float64 [4, 4]

    Raises
    ------
    InputError
        If no pose is known; says why that of the nearest is not.
    """
    nearest_problem = ''
    for each in references:
        try:
            return each, locate(each)
        except InputError as err:
            nearest_problem = nearest_problem or str(err)
    others = (f'; nor is that of {len(references) - 1} others within scale.hold_s ({hold_s:g} s) '
              'of the image' if len(references) > 1 else '')
    raise InputError(nearest_problem + others)


def describe_axes(config: ScaleConfig, camera_frame: str, reference_frames: Mapping[str, str]
                  ) -> list[str]:
    """
    Say which axes coordinate frames are assumed to have, where no message says it.

    Parameters
    ----------
    config : ScaleConfig
    camera_frame : str
        Frame of the images.
    reference_frames : mapping of str to str
        Frame of the reference of each source that has one.

    Returns
    -------
    list of str
        Empty if nothing is assumed: TF supplies the poses of optical frames.
    """
    texts = []
    for source, frame in reference_frames.items():
        if source in config.extrinsics:
            axes = ('z forward, x right, y down (optical)' if _is_optical(source, frame)
                    else 'x forward, y left, z up')
            reason = ('as of every depth image' if source == 'depth'
                      else 'by its name: optical frames end in _optical_frame or _optical')
            texts.append(f'the frame {frame!r} of the reference is taken as {axes}, {reason}')
    if config.needs_transforms and not is_optical_frame(camera_frame):
        texts.append(f'the frame {camera_frame!r} of the images is taken as optical (z forward, x '
                     'right, y down), though its name does not end in _optical_frame or _optical')
    return texts


def _is_optical(source: str, reference_frame: str) -> bool:
    """Return whether the data of a reference are in optical axes."""
    return source == 'depth' or is_optical_frame(reference_frame)


class ReferenceSource:
    """
    The anchors of one reference of a camera, held while the camera's poses are known.

    Parameters
    ----------
    name : str
        Of `metric.config.REFERENCE_SOURCES`.
    hold_s : float
        Largest time between a reference and the image for which it counts, s.
    """

    def __init__(self, name: str, hold_s: float) -> None:
        """Start without anchors."""
        self._name, self._hold_s = name, hold_s
        self._held = HeldAnchors()

    def forget(self) -> None:
        """Hold nothing any more."""
        self._held = HeldAnchors()

    def measure(self, frame: ScaleFrame) -> Measurement | None:
        """
        Return the anchors for a frame; None if there are none.

        Raises
        ------
        InputError
            If the reference is invalid and nothing is held.
        WrongContentError
            If what it says is wrong; then what is held should be forgotten.
        """
        anchors, problem = frame.anchors.get(self._name), frame.problems.get(self._name)
        if isinstance(problem, WrongContentError):
            raise problem
        if anchors is not None:
            check_unit(anchors.depth_m)
        apart_s = 0.0 if anchors is None else abs(frame.stamp_ns - anchors.stamp_ns) * 1e-9
        is_new = anchors is not None and apart_s <= self._hold_s
        known = self._held.update(anchors if is_new else None, frame.K, frame.world_from_camera,
                                  frame.stamp_ns, frame.affine_invariant_depth.shape)
        if known is None:
            if problem is not None:
                raise problem
            return None
        if is_new:
            return Measurement(known, math.exp(-apart_s / self._hold_s), frame.stamp_ns)
        age_s = max(0, frame.stamp_ns - known.stamp_ns) * 1e-9
        return Measurement(known, math.exp(-age_s / self._hold_s), known.stamp_ns, held=True,
                           problem=problem)
