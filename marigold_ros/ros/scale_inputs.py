"""What a scale source needs of the world: anchors from a reference, or the camera's tilt."""

from __future__ import annotations

import numpy as np

from marigold_ros.depth.errors import InputError
from marigold_ros.depth.types import RgbImage
from marigold_ros.geometry.poses import (
    Matrix,
    optical_from_sensor,
    OPTICAL_SUFFIX,
    parse_extrinsics,
)
from marigold_ros.metric.anchors import Anchors, anchors_from_depth, anchors_from_points
from marigold_ros.metric.checks import FreezeWatch
from marigold_ros.metric.sources.ground_plane import tilt_of
from marigold_ros.metric.sources.measured import REFERENCES
from marigold_ros.ros.calibration import Calibration, CalibrationCache
from marigold_ros.ros.conversions import (
    depth_from_message,
    points_from_cloud,
    points_from_scan_message,
)
from marigold_ros.ros.frame_buffer import ReceivedFrame
from marigold_ros.ros.parameters import Settings
from marigold_ros.ros.references import Reference, ReferenceStore
from marigold_ros.ros.transforms import Transforms

# A stamp that stands still for so long, while messages arrive, is a clock that stands still.
FROZEN_STAMP_S = 1.0


class ReferencePort:
    """
    The reference of one camera as the worker sees it: anchors for an image, or what is wrong.

    Parameters
    ----------
    rectified : bool
        Whether the reference depth is free of distortion already.
    """

    def __init__(self, rectified: bool) -> None:
        """Start without any reference."""
        self.store = ReferenceStore()
        self.calibrations = CalibrationCache(rectified)
        self._freeze = FreezeWatch()

    def reset(self) -> None:
        """Forget what came before; camera_infos stay."""
        self.store.clear()
        self._freeze = FreezeWatch()

    def anchors(self, frame: ReceivedFrame, rgb: RgbImage, calibration: Calibration,
                settings: Settings, transforms: Transforms | None) -> Anchors | None:
        """
        Make anchors of the reference nearest in time to an image.

        Parameters
        ----------
        frame : ReceivedFrame
        rgb : uint8 [H, W, 3]
            The image that was processed, rectified.
        calibration : Calibration
            Of that image.
        settings : Settings
        transforms : Transforms or None

        Returns
        -------
        Anchors or None
            None while nothing has come, or nothing for a time that is near enough.

        Raises
        ------
        InputError
            If what comes must not be used; the text says what is wrong with it.
        """
        reference = self.store.nearest(frame.stamp_ns)
        if reference is None:
            return None
        if abs(frame.stamp_ns - reference.stamp_ns) * 1e-9 > settings.scale_hold_s:
            self._check_clock(frame, settings.scale_hold_s)
            return None
        self._freeze.check(memoryview(reference.message)[reference.content:],
                           reference.stamp_ns, rgb)
        pose = _camera_from_reference(reference, frame, settings, transforms)
        K, size = calibration.camera.K, rgb.shape[:2]
        if settings.scale_source == 'depth':
            depth_m = depth_from_message(reference.message, compressed=reference.compressed,
                                         max_pixels=settings.max_input_pixels)
            own = self.calibrations.find(reference.stamp_ns, *depth_m.shape)
            if own.problem:
                raise InputError(f'reference depth: {own.problem}')
            if own.rectifier is not None:
                depth_m = own.rectifier.rectify_depth(depth_m)
            return anchors_from_depth(depth_m, own.camera.K, pose, K, size, reference.stamp_ns)
        points = (points_from_cloud(reference.message) if settings.scale_source == 'cloud'
                  else points_from_scan_message(reference.message))
        return anchors_from_points(points, pose, K, size, reference.stamp_ns)

    def _check_clock(self, frame: ReceivedFrame, hold_s: float) -> None:
        """Raise InputError if nothing is of the image's time though something came with it."""
        newest = self.store.newest()
        if newest is None:
            return
        if self.store.stamp_stands_s > FROZEN_STAMP_S:
            raise InputError('the reference freezes: messages arrive, but all with one stamp for '
                             f'{self.store.stamp_stands_s:.1f} s')
        if abs(frame.received_s - newest.received_s) <= hold_s:
            apart_s = (frame.stamp_ns - newest.stamp_ns) * 1e-9
            raise InputError(
                'the clocks disagree: the reference arrived with the image and is stamped '
                f'{abs(apart_s):.1f} s {"before" if apart_s > 0 else "after"} it')


def _camera_from_reference(reference: Reference, frame: ReceivedFrame, settings: Settings,
                           transforms: Transforms | None) -> Matrix:
    """Find the pose of the reference's frame in the image's, [4,4]."""
    if settings.scale_extrinsics is not None:
        optical = (settings.scale_source == 'depth'
                   or reference.frame_id.endswith(OPTICAL_SUFFIX))
        return optical_from_sensor(parse_extrinsics(settings.scale_extrinsics), optical)
    if reference.frame_id == frame.frame_id:
        return np.eye(4)
    try:
        if transforms is None:
            raise InputError('TF is not listened to')
        return transforms.lookup(frame.frame_id, reference.frame_id, reference.stamp_ns)
    except InputError as err:
        raise InputError(f'where is {reference.frame_id or "the reference"} seen from '
                         f'{frame.frame_id}? {err}; else set scale.extrinsics') from err


def needs_transforms(settings: Settings) -> bool:
    """Whether the scale asks TF for something that no parameter says."""
    if settings.scale_source == 'ground_plane':
        return settings.scale_camera_pitch_deg is None or settings.scale_camera_roll_deg is None
    return settings.scale_source in REFERENCES and settings.scale_extrinsics is None


def scale_inputs(port: ReferencePort, frame: ReceivedFrame, rgb: RgbImage,
                 calibration: Calibration, settings: Settings, transforms: Transforms | None
                 ) -> tuple[Anchors | None, str, tuple[float, float] | None]:
    """
    Collect what the scale source needs of the world beside the prediction.

    Returns
    -------
    anchors : Anchors or None
    problem : str
        Why the reference must be refused, else empty.
    tilt : (float, float) or None
        Pitch and roll of the camera by TF, rad.
    """
    if settings.scale_source == 'ground_plane' and transforms is not None:
        try:
            base_from_camera = transforms.lookup(settings.scale_base_frame, frame.frame_id,
                                                 frame.stamp_ns)
        except InputError:
            return None, '', None  # it is searched in the image
        return None, '', tilt_of(-base_from_camera[2, :3])
    if settings.scale_source not in REFERENCES:
        return None, '', None
    try:
        return port.anchors(frame, rgb, calibration, settings, transforms), '', None
    except InputError as err:
        return None, str(err), None
