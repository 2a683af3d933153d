"""
Source `motion`: the depth of image points, from how they move while the camera moves as poses say.

Corners are tracked from frame to frame by Lucas-Kanade, which begins where the optical flow of
carrying takes them, and followed backwards to see whether they come out where they began.  The
inverse depth rho of a corner is the one at which its point is projected best into the views of
the last seconds: a point on the ray r of the newest camera lies at (R r + rho t) / rho in another
one, in which the newest has the pose (R, t).  That needs parallax, so a camera that stands still
or only turns measures nothing; what it knew is held, moved by the poses, and becomes less certain.
"""

from __future__ import annotations

import math
from typing import Any, TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from marigold_ros.depth.carry import resize_matrix
from marigold_ros.depth.errors import InputError
from marigold_ros.metric.anchors import Anchors
from marigold_ros.metric.known_points import KnownPoints, MAX_SIGMA_LOG
from marigold_ros.metric.types import Measurement

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage, Flow, GreyImage
    from marigold_ros.geometry.poses import Matrix
    from marigold_ros.metric.sources.ground_plane import Floor, GroundPlane
    from marigold_ros.metric.types import ScaleFrame

Pixels = NDArray[np.float32]
Vector = NDArray[np.float64]

# Wider images are reduced to this width before corners are tracked, px.
TRACKING_WIDTH_PX = 640
# Corners are searched in an image of half the size; weak ones as well, for they cover what has
# little texture.
MAX_CORNERS, CORNER_QUALITY, CORNER_DISTANCE_PX = 500, 0.0003, 14
WINDOW_PX = 17
# Where no flow tells where a corner is, it is searched in so many reduced images first.
PYRAMID_LEVELS = 3
# Steps that find where a corner has gone, by a flow that tells where pixels come from.
FLOW_STEPS = 3
# Largest distance between a corner and where it comes out when it is followed there and back.
MAX_RETURN_PX = 0.6
# Images of faster cameras are left out: what is known moves by the poses.
TRACKING_PERIOD_S = 0.045
# Views that are compared: so many, so far apart in time.
VIEWS, VIEW_PERIOD_S = 12, 0.2
MIN_VIEWS = 2
# A point that is projected with a larger error is none; without parallax its sigma is too large.
MAX_RMS_PX = 0.8
# Error of a tracked corner, and of the view from a pose, px.
PIXEL_SIGMA = 0.5
STEPS = 4
# A view so far away or more is turned by so many corners or more, in so many steps, each damped by
# this standard deviation; it stays turned if the corners' distance to their lines falls to this
# share.
MIN_BASELINE_M, MIN_CORNERS_TO_TURN, TURNS = 0.05, 30, 2
TURN_SIGMA_RAD, KEPT_RESIDUAL = math.radians(0.5), 0.7
# Of the inverse depth, 1/m: what is farther is as far as the sky.
MIN_RHO = 1e-3
# Points lower than this share of the camera's height below the floor are reflections.
BELOW_FLOOR = 0.15


class MotionAnchors:
    """
    Measure depth at the corners of one camera's images while it moves.

    Parameters
    ----------
    refine_rotation : bool
        Whether the rotation between two views may be corrected by their corners, where these
        contradict the poses: for odometry that drifts, and for late stamps.  With intrinsics that
        are not exact it does harm.

    Attributes
    ----------
    fresh : int
        Number of corners whose depth the last image has measured; that of others is held.

    Examples
    --------
    A wall of noise 2 m ahead, along which the camera moves by 0.05 m a frame:

    >>> noise = np.random.default_rng(0).integers(0, 255, (240, 900), np.uint8)
    >>> wall = cv2.equalizeHist(cv2.GaussianBlur(noise, (0, 0), 2.0))
    >>> K = np.array([[200.0, 0.0, 159.5], [0.0, 200.0, 119.5], [0.0, 0.0, 1.0]])
    >>> motion, pose = MotionAnchors(), np.eye(4)
    >>> for frame in range(10):
    ...     pose[0, 3] = 0.05 * frame  # 5 px
    ...     anchors = motion.update(wall[:, 5 * frame:5 * frame + 320], K, pose, frame * 10 ** 8)
    >>> print(f'{np.median(anchors.depth_m):.2f} m')
    2.00 m
    """

    def __init__(self, refine_rotation: bool = False) -> None:
        """Start without corners."""
        self._refine_rotation = refine_rotation
        self.reset()

    def reset(self) -> None:
        """Forget all corners and points."""
        self._size, self._stamp_ns = (0, 0), 0
        self._grey: GreyImage | None = None  # in which the corners were tracked last
        self._tracked_ns = 0
        self._pixels: Pixels = np.empty((0, 2), np.float32)
        # Where the flow has taken them since; None if it is not known.
        self._expected: Pixels | None = None
        self._observed: Pixels = np.empty((0, VIEWS, 2), np.float32)  # NaN where not seen
        self._tracked = KnownPoints.unknown(0)
        self._lost = KnownPoints.unknown(0)
        self._poses = np.tile(np.eye(4), (VIEWS, 1, 1))  # where nothing is seen from, yet
        self._view = -1  # index of the newest view
        self._view_ns = 0
        self.fresh = 0

    def update(self, grey: GreyImage, K: Matrix, world_from_camera: Matrix, stamp_ns: int,
               floor: Floor | None = None, flow: Flow | None = None) -> Anchors:
        """
        Track the corners into the next image, and measure their depth.

        Parameters
        ----------
        grey : uint8 [H, W]
            Rectified image.  One of another size than the last, or not later, starts afresh.
        K : float64 [3, 3]
            Intrinsics of the image, px; those of all views since the start.
        world_from_camera : float64 [4, 4]
            Pose of the optical frame in a fixed coordinate frame, m.
        stamp_ns : int
            Stamp of the image, ns.
        floor : Floor or None
            Points far below it are dropped; None: it is unknown.
        flow : Flow or None
            Is used if it begins at the last image that was passed.

        Returns
        -------
        Anchors
            Measured in this image or held, with their sigma.

        Raises
        ------
        InputError
            If the pose is not finite.
        """
        if not np.isfinite(world_from_camera).all():
            raise InputError('`world_from_camera` must be finite; got '
                             f'{world_from_camera.tolist()}')
        size = grey.shape
        if size != self._size or stamp_ns <= self._stamp_ns:
            self.reset()
        grey, K = _reduce(grey, K)
        if self._expected is not None:
            self._expected = (_follow_flow(flow.source, self._expected, grey.shape)
                              if flow is not None and flow.since_ns == self._stamp_ns else None)
        self._size, self._stamp_ns = size, stamp_ns
        if self._grey is None or stamp_ns - self._tracked_ns >= 1e9 * TRACKING_PERIOD_S:
            # 1. Track the corners, and measure the depth of those seen from several places.
            self._track(grey)
            self._grey, self._tracked_ns = grey.copy(), stamp_ns
            self._measure(K, world_from_camera, stamp_ns, floor)
            # 2. Remember this view, and start new corners in it.
            if self._view < 0 or stamp_ns - self._view_ns >= 1e9 * VIEW_PERIOD_S - 1e6:
                self._begin_view(grey, world_from_camera, stamp_ns)
            self._expected = self._pixels
        # 3. Move all points that are known into this image.
        known = self._tracked.joined(self._lost)
        anchors, _, in_image = known.find_visible(K, world_from_camera, stamp_ns, grey.shape)
        self._lost = self._lost.select(in_image[len(self._pixels):])
        scale = size[1] / grey.shape[1]
        return _resize_anchors(anchors, scale, size)

    def _measure(self, K: Matrix, world_from_camera: Matrix, stamp_ns: int, floor: Floor | None
                 ) -> None:
        """Find the depth of the corners in an image, as far as the views tell it."""
        view_from_camera = np.linalg.inv(self._poses) @ world_from_camera
        if self._refine_rotation:
            _refine_rotations(view_from_camera, self._pixels, self._observed, K)
        points, sigma_log, is_wrong = _triangulate(self._pixels, self._observed, view_from_camera,
                                                   K)
        measured = np.isfinite(sigma_log)
        if floor is not None:
            is_below = points @ floor.down > (1.0 + BELOW_FLOOR) * floor.height_m
            is_wrong |= measured & is_below
            measured &= ~is_below
        points = points @ world_from_camera[:3, :3].T + world_from_camera[:3, 3]
        self.fresh = int(measured.sum())
        self._tracked.measured_ns[is_wrong] = -1
        self._tracked.points[measured] = points[measured]
        self._tracked.sigma_log[measured] = sigma_log[measured]
        self._tracked.measured_ns[measured] = stamp_ns

    def _track(self, grey: GreyImage) -> None:
        """Follow the corners from the last image into this one; drop those that are lost."""
        if self._grey is None or not len(self._pixels):
            return
        moved, forth = _follow(self._grey, grey, self._pixels, self._expected)
        returned, back = _follow(grey, self._grey, moved, None if self._expected is None
                                 else self._pixels + (moved - self._expected))
        height, width = grey.shape
        kept = (forth & back & (np.linalg.norm(returned - self._pixels, axis=1) < MAX_RETURN_PX)
                & (moved >= 0).all(axis=1) & (moved <= (width - 1, height - 1)).all(axis=1))
        was_measured = self._tracked.measured_ns >= 0
        self._lost = self._lost.joined(self._tracked.select(~kept & was_measured))
        self._pixels, self._observed = moved[kept], self._observed[kept]
        self._tracked = self._tracked.select(kept)

    def _begin_view(self, grey: GreyImage, world_from_camera: Matrix, stamp_ns: int) -> None:
        """Store where the corners are seen from here; replaces the oldest view."""
        self._view, self._view_ns = (self._view + 1) % VIEWS, stamp_ns
        self._poses[self._view] = world_from_camera
        if len(self._pixels) < MAX_CORNERS:
            found = _find_corners(grey, self._pixels)
            self._pixels = np.concatenate([self._pixels, found])
            self._observed = np.concatenate(
                [self._observed, np.full((len(found), VIEWS, 2), np.nan, np.float32)])
            self._tracked = self._tracked.joined(KnownPoints.unknown(len(found)))
        self._observed[:, self._view] = self._pixels


def _reduce(grey: GreyImage, K: Matrix) -> tuple[GreyImage, Matrix]:
    """Reduce an image to the width at which corners are tracked, with its intrinsics."""
    height, width = grey.shape
    if width <= TRACKING_WIDTH_PX:
        return grey, K
    reduced: Any = cv2.resize(
        grey, (TRACKING_WIDTH_PX, round(height * TRACKING_WIDTH_PX / width)),
        interpolation=cv2.INTER_AREA)
    return reduced, resize_matrix((width, height), reduced.shape[1::-1]) @ K


def _find_rays(pixels: Pixels, K: Matrix) -> Vector:
    """Return the rays [..., 3] of pixels [..., 2], with z = 1."""
    rays = (pixels - K[:2, 2]) / K[[0, 1], [0, 1]]
    return np.concatenate([rays, np.ones((*rays.shape[:-1], 1))], axis=-1)


def _follow_flow(source: FloatImage, pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """
    Return where the flow takes pixels [n, 2] of an image of (height, width).

    The flow tells where each pixel x has come from, p = x + f(x); so x is the fixed point of
    x -> p - f(x).
    """
    if not len(pixels):
        return pixels
    to_flow = resize_matrix(size[::-1], source.shape[1::-1])
    begin = cv2.transform(pixels[:, None], to_flow[:2])
    no_second_map: Any = None
    moved = begin
    for _ in range(FLOW_STEPS):
        moved = moved + begin - cv2.remap(source, moved, no_second_map, cv2.INTER_LINEAR,
                                          borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.transform(moved, np.linalg.inv(to_flow)[:2])[:, 0], np.float32)


def _follow(grey: GreyImage, other: GreyImage, pixels: Pixels, expected: Pixels | None
            ) -> tuple[Pixels, NDArray[np.bool_]]:
    """
    Return where pixels [n, 2] of an image are in another one, and whether they are found.

    They are searched around where they are expected; None: in ever larger images, from afar.
    """
    nothing: Any = None
    moved, found, _ = cv2.calcOpticalFlowPyrLK(
        grey, other, pixels, nothing if expected is None else expected.copy(),
        winSize=(WINDOW_PX, WINDOW_PX), maxLevel=PYRAMID_LEVELS if expected is None else 0,
        criteria=(cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 15, 0.03),
        flags=0 if expected is None else cv2.OPTFLOW_USE_INITIAL_FLOW)
    return np.asarray(moved, np.float32), np.asarray(found).ravel() > 0


def _find_corners(grey: GreyImage, pixels: Pixels) -> Pixels:
    """Find corners that are not near those at the pixels [n, 2]."""
    half = np.asarray(cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    free = np.full(half.shape, 255, np.uint8)
    for column, row in np.rint(pixels / 2).astype(int):
        cv2.circle(free, (column, row), CORNER_DISTANCE_PX // 2, 0, -1)
    found = cv2.goodFeaturesToTrack(half, MAX_CORNERS - len(pixels), CORNER_QUALITY,
                                    CORNER_DISTANCE_PX / 2, mask=free)
    if found is None:
        return np.empty((0, 2), np.float32)
    return np.asarray(2.0 * found.reshape(-1, 2) + 0.5, np.float32)


def _refine_rotations(view_from_camera: Vector, pixels: Pixels, observed: Pixels, K: Matrix
                      ) -> None:
    """Turn the views [VIEWS, 4, 4] in place, where that brings corners to their epipolar lines."""
    rays, focal_px = _find_rays(pixels, K), K[[0, 1], [0, 1]].mean()
    for pose, in_view in zip(view_from_camera, observed.swapaxes(0, 1)):
        seen = np.isfinite(in_view[:, 0])
        if (seen.sum() >= MIN_CORNERS_TO_TURN
                and np.linalg.norm(pose[:3, 3]) >= MIN_BASELINE_M):
            turn = _find_turn(pose, rays[seen], _find_rays(in_view[seen], K), focal_px)
            pose[:3, :3] = turn @ pose[:3, :3]


def _find_turn(pose: Matrix, rays: Vector, others: Vector, focal_px: float) -> Matrix:
    """
    Find the small turn after which corners lie closest to their epipolar lines.

    A corner with the rays r and q in two cameras fulfils q . (t x R r) = 0, whatever its depth.

    Parameters
    ----------
    pose : float64 [4, 4]
        R and t of the first camera in the second.
    rays, others : float64 [n, 3]
        In the first and the second camera, with z = 1.
    focal_px : float

    Returns
    -------
    float64 [3, 3]
        The identity, unless the median distance falls to less than `KEPT_RESIDUAL` of it.
    """
    rotation, translation = pose[:3, :3], pose[:3, 3]
    turn, medians_px = np.eye(3), []
    for step in range(TURNS + 1):
        turned = rays @ (turn @ rotation).T
        line = np.cross(translation, turned)
        scale = focal_px / np.maximum(np.linalg.norm(line[:, :2], axis=1), 1e-9)
        error = scale * np.sum(others * line, axis=1)  # px
        medians_px.append(np.median(np.abs(error)))
        if step < TURNS:
            slope = scale[:, None] * np.cross(turned, np.cross(others, translation))
            weighted = slope / (1.0 + (error / MAX_RMS_PX) ** 2)[:, None]
            normal = weighted.T @ slope + np.eye(3) / TURN_SIGMA_RAD ** 2
            turn = Rotation.from_rotvec(-np.linalg.solve(normal, weighted.T @ error)
                                        ).as_matrix() @ turn
    return turn if medians_px[-1] < KEPT_RESIDUAL * medians_px[0] else np.eye(3)


def _triangulate(pixels: Pixels, observed: Pixels, view_from_camera: Vector, K: Matrix
                 ) -> tuple[Vector, Vector, NDArray[np.bool_]]:
    """
    Find the points that are projected best into all views, by Gauss-Newton over inverse depth.

    Parameters
    ----------
    pixels : float32 [n, 2]
        In the newest image.
    observed : float32 [n, VIEWS, 2]
        In the views; NaN where not seen.
    view_from_camera : float64 [VIEWS, 4, 4]
        Pose of the newest camera in the views.
    K : float64 [3, 3]

    Returns
    -------
    points : float64 [n, 3]
        In the newest camera, m.
    sigma_log : float64 [n]
        Standard deviation of the logarithm of depth; NaN where there is no good depth.
    is_wrong : bool [n]
        Whether what was seen does not belong to one point, or to one behind the camera.
    """
    rotation, translation = view_from_camera[:, :3, :3], view_from_camera[:, :3, 3]
    rays, focal_px = _find_rays(pixels, K), K[[0, 1], [0, 1]].mean()
    seen = np.isfinite(observed[..., 0])
    expected = np.where(seen[..., None], _find_rays(observed, K)[..., :2], 0.0)
    turned = np.einsum('vij,nj->nvi', rotation, rays)  # R r
    # The projection is linear in rho once multiplied by its depth: that is where to begin.
    slope = expected * translation[:, 2:] - translation[:, :2]
    error = (turned[..., :2] - expected * turned[..., 2:]) * seen[..., None]
    rho = _ratio((slope * error).sum((1, 2)), (slope * slope * seen[..., None]).sum((1, 2)))
    for _ in range(STEPS):
        depth = turned[..., 2:] + rho[:, None, None] * translation[:, 2:]
        depth = np.where(depth > 1e-3, depth, 1e-3)
        projected = (turned[..., :2] + rho[:, None, None] * translation[:, :2]) / depth
        error = np.where(seen[..., None], projected - expected, 0.0)
        slope = np.where(seen[..., None], (translation[:, :2] - projected * translation[:, 2:])
                         / depth, 0.0)
        information = (slope * slope).sum((1, 2))
        rho = rho - _ratio((slope * error).sum((1, 2)), information)
    count = seen.sum(axis=1)
    rms_px = np.sqrt(_ratio((error * error).sum((1, 2)), count)) * focal_px
    sigma_log = np.full(len(pixels), np.nan)
    with np.errstate(divide='ignore', invalid='ignore'):
        # The error of the newest pixel is the same in all views, so it does not average out.
        common = ((slope / depth).sum(axis=1) ** 2).sum(axis=1) / information ** 2
        sigma_rho = (np.maximum(rms_px, PIXEL_SIGMA) / focal_px
                     * np.sqrt(1.0 / information + common))
    is_wrong = (count >= MIN_VIEWS) & ((rms_px > MAX_RMS_PX) | (rho + 3.0 * sigma_rho < 0.0))
    usable = (count >= MIN_VIEWS) & ~is_wrong & (rho > MIN_RHO)
    sigma_log[usable] = sigma_rho[usable] / rho[usable]
    points = rays / np.where(usable, rho, 1.0)[:, None]
    sigma_log[~(sigma_log < MAX_SIGMA_LOG)] = np.nan
    return points, sigma_log, is_wrong


def _ratio(values: Vector, divisors: NDArray[np.floating]) -> Vector:
    return np.asarray(values / np.where(divisors > 0, divisors, np.inf))


def _resize_anchors(anchors: Anchors, scale: float, size: tuple[int, int]) -> Anchors:
    """Return anchors in an image that is larger by a factor, of (height, width) px."""
    if scale == 1.0:
        return anchors
    rows, columns = (np.minimum((scale * (each + 0.5)).astype(np.int64), limit - 1)
                     for each, limit in ((anchors.rows, size[0]), (anchors.columns, size[1])))
    return Anchors(rows, columns, anchors.depth_m, anchors.stamp_ns, anchors.sigma_log)


class MotionSource:
    """
    The anchors of `motion` for one camera.

    Parameters
    ----------
    ground : GroundPlane or None
        What tells where the floor is; None: it is unknown.
    refine_rotation : bool
        See `MotionAnchors`.
    hold_s : float
        Time constant with which the weight of what is held falls, s.
    """

    def __init__(self, ground: GroundPlane | None, refine_rotation: bool, hold_s: float) -> None:
        """Start without corners."""
        self._ground, self._hold_s = ground, hold_s
        self._motion = MotionAnchors(refine_rotation)

    def measure(self, frame: ScaleFrame) -> Measurement | None:
        """
        Return the anchors for a frame; None if nothing has been measured yet.

        Raises
        ------
        InputError
            If the pose of the camera is unknown.
        """
        if frame.world_from_camera is None or frame.grey is None:
            raise InputError('motion needs the pose of the camera in a fixed coordinate frame: '
                             + (frame.pose_problem or 'it is unknown'))
        anchors = self._motion.update(frame.grey, frame.K, frame.world_from_camera,
                                      frame.stamp_ns, self._find_floor(frame), frame.flow)
        if not len(anchors):
            return None
        age_s = (frame.stamp_ns - anchors.stamp_ns) * 1e-9
        return Measurement(anchors, math.exp(-age_s / self._hold_s), anchors.stamp_ns,
                           held=not self._motion.fresh)

    def _find_floor(self, frame: ScaleFrame) -> Floor | None:
        """Return the floor below the camera; None where TF does not tell its tilt."""
        if self._ground is None:
            return None
        try:
            return self._ground.floor(self._ground.find_tilt(frame))
        except InputError:  # the report has no tilt, and `ground_plane` says why
            return None
