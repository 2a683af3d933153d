"""Camera calibration, its resizing, and image rectification."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from marigold_ros.depth.errors import InputError

if TYPE_CHECKING:
    from marigold_ros.depth.types import FloatImage, RgbImage

Matrix = NDArray[np.float64]

# OpenCV has two models: pinhole, and fisheye (Kannala and Brandt's), where D = 0 is r = f theta.
# Drivers and calibration tools use several names for each; sensor_msgs defines the first two of
# the pinhole model and the first of the fisheye.
PINHOLE_MODELS = ('plumb_bob', 'rational_polynomial', 'brown_conrady', 'radtan',
                  'radial_tangential', 'pinhole', 'opencv')
FISHEYE_MODELS = ('equidistant', 'fisheye', 'opencv_fisheye', 'kannala_brandt', 'kannala_brandt4')
# Numbers of coefficients of each model; image_geometry has no check.
DISTORTION_COUNTS = {
    **dict.fromkeys(('', 'none'), (0,)), **dict.fromkeys(PINHOLE_MODELS, (4, 5, 8, 12, 14)),
    'thin_prism': (12, 14), **dict.fromkeys(FISHEYE_MODELS, (4,))}

# Calibration files are often rounded to four digits.
ROTATION_TOLERANCE = 0.01

# cv2.remap addresses pixels with 16 bits.
MAX_RECTIFIED_PX = 32766


@dataclass(frozen=True, eq=False)
class Camera:
    """
    Calibration of one camera, as sensor_msgs/CameraInfo defines it.

    Attributes
    ----------
    width, height : int
        Size of the calibrated image, px.
    K : float64 [3, 3]
        Intrinsics of the raw image, px; K[0, 0] == 0 means uncalibrated.
    D : tuple of float
        Distortion coefficients, in OpenCV's order.
    distortion_model : str
        A key of DISTORTION_COUNTS; case and punctuation are ignored.
    R : float64 [3, 3]
        Rotation from the raw to the rectified camera frame.
    P : float64 [3, 4]
        Projection into the rectified image, px.

    Raises
    ------
    InputError
        For a size that is not positive, a matrix of another shape, a number that is not finite,
        a focal length below zero, a third row that is not 0 0 1, or an R that is not a rotation.

    Examples
    --------
    >>> K = [[500.0, 0.0, 320.0], [0.0, 500.0, 240.0], [0.0, 0.0, 1.0]]
    >>> P = np.hstack([K, np.zeros((3, 1))])
    >>> camera = Camera(640, 480, K, (-0.3, 0.1, 0.0, 0.0, 0.0), 'plumb_bob', np.eye(3), P)
    >>> camera.is_calibrated, camera.needs_rectification
    (True, True)
    >>> camera.resized(320, 240).K[0].tolist()
    [250.0, 0.0, 160.0]
    """

    width: int
    height: int
    K: Matrix
    D: tuple[float, ...]
    distortion_model: str
    R: Matrix
    P: Matrix

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise InputError(
                f'`width` and `height` must be positive; got {self.width} x {self.height}')
        object.__setattr__(self, 'D', tuple(float(value) for value in self.D))
        if not np.all(np.isfinite(self.D)):
            raise InputError(f'`D` must be finite; got {self.D}')
        for name, shape in (('K', (3, 3)), ('R', (3, 3)), ('P', (3, 4))):
            object.__setattr__(self, name, _constant_matrix(name, getattr(self, name), shape))
        for name, matrix in (('K', self.K), ('P', self.P)):
            fx, fy = matrix[0, 0], matrix[1, 1]
            if min(fx, fy) < 0 or (fx == 0) != (fy == 0):
                raise InputError(
                    f'`{name}` must have two positive focal lengths, or two zeros if uncalibrated;'
                    f' got fx={fx}, fy={fy}')
            if fx != 0 and matrix[2].tolist() != [0.0, 0.0, 1.0, 0.0][:matrix.shape[1]]:
                raise InputError(f'`{name}` must have 0 0 1 in its third row; '
                                 f'got {matrix[2].tolist()}')
        if (np.abs(self.R).max() > 1 + ROTATION_TOLERANCE
                or np.abs(self.R @ self.R.T - np.eye(3)).max() > ROTATION_TOLERANCE
                or np.linalg.det(self.R) < 0):
            raise InputError(f'`R` must be a rotation; got {self.R.tolist()}')

    def __eq__(self, other: object) -> bool:
        """Compare all fields by value."""
        return isinstance(other, Camera) and self._key() == other._key()

    def __hash__(self) -> int:
        """Hash all fields by value."""
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        return (self.width, self.height, self.D, self.distortion_model,
                self.K.tobytes(), self.R.tobytes(), self.P.tobytes())

    @property
    def is_calibrated(self) -> bool:
        """Check whether the intrinsics are known (sensor_msgs/CameraInfo: K[0] != 0)."""
        return bool(self.K[0, 0] != 0)

    @property
    def is_fisheye(self) -> bool:
        """Check whether the model is OpenCV's fisheye model, by any of its names."""
        return _known_model(self.distortion_model) in FISHEYE_MODELS

    @property
    def needs_rectification(self) -> bool:
        """Check whether raw images of this camera are distorted."""
        return self.is_fisheye or any(self.D)

    def distortion(self) -> tuple[float, ...]:
        """
        Return the distortion coefficients of OpenCV's model that the camera's model means.

        Returns
        -------
        tuple of float
            D without meaningless zeros at its end; zeros if D is empty or all zero.

        Raises
        ------
        InputError
            If the model is unknown, or D has another number of coefficients.
        """
        model = _known_model(self.distortion_model)
        if model is None:
            raise InputError('`distortion_model` must be one of '
                             f'{", ".join(filter(None, DISTORTION_COUNTS))}; '
                             f'got {self.distortion_model!r}')
        counts = DISTORTION_COUNTS[model]
        if not any(self.D):
            return (0.0,) * counts[0]
        fitting = [count for count in counts
                   if count <= len(self.D) and not any(self.D[count:])]
        if not fitting:
            raise InputError(f'`D` of the model {self.distortion_model!r} must have '
                             f'{" or ".join(map(str, counts))} coefficients; got {len(self.D)}')
        return self.D[:max(fitting)]

    def resized(self, width: int, height: int) -> Camera:
        """
        Return the calibration of the resized image.

        Parameters
        ----------
        width, height : int
            New size, px.

        Returns
        -------
        Camera
            fx, cx and Tx scaled by the ratio of widths, fy, cy and Ty by that of heights
            (image_geometry's rule for binning); the distortion is unchanged.
        """
        ratio = np.array([[width / self.width], [height / self.height], [1.0]])
        return replace(self, width=width, height=height, K=self.K * ratio, P=self.P * ratio)

    def rectified(self) -> Camera:
        """
        Return the calibration of the rectified image.

        Returns
        -------
        Camera
            D = 0, R = I and K = P[:3, :3], so that consumers of K (MoveIt) and of P
            (image_geometry) use the same projection.
        """
        return replace(self, K=self.P[:, :3], D=(0.0,) * 5, distortion_model='plumb_bob',
                       R=np.eye(3))

    def undistorted(self) -> Camera:
        """Return the calibration of a raw image without distortion, which K describes."""
        return replace(self, D=(0.0,) * 5, distortion_model='plumb_bob', R=np.eye(3),
                       P=np.hstack([self.K, np.zeros((3, 1))]))


class Rectifier:
    """
    Rectify raw images of one camera with precomputed maps.

    Parameters
    ----------
    camera : Camera
        Calibration of the raw image.

    Attributes
    ----------
    camera : Camera
        Calibration that the maps were computed for.
    valid : bool [H, W]
        Rectified pixels that lie inside the raw image.
    covers_all : bool
        Whether these are all.

    Raises
    ------
    InputError
        If the camera is uncalibrated, its distortion model or number of coefficients is not
        supported, or its images are too large.

    Examples
    --------
    >>> K = [[50.0, 0.0, 32.0], [0.0, 50.0, 24.0], [0.0, 0.0, 1.0]]
    >>> P = np.hstack([K, np.zeros((3, 1))])
    >>> camera = Camera(64, 48, K, (0.2, 0.0, 0.0, 0.0, 0.0), 'plumb_bob', np.eye(3), P)
    >>> rectifier = Rectifier(camera)
    >>> rectified = rectifier.rectify(np.full((48, 64, 3), 200, np.uint8))
    >>> rectified.shape, rectified[24, 32].tolist(), rectified[0, 0].tolist()
    ((48, 64, 3), [200, 200, 200], [0, 0, 0])
    """

    def __init__(self, camera: Camera) -> None:
        if max(camera.width, camera.height) > MAX_RECTIFIED_PX:
            raise InputError(f'`camera` must be at most {MAX_RECTIFIED_PX} px wide and high to be '
                             f'rectified; got {camera.width} x {camera.height}')
        self.camera = camera
        self._maps = _rectification_maps(camera)
        covered = np.full((camera.height, camera.width), 255, np.uint8)
        self.valid: NDArray[np.bool_] = self._remap(covered) == 255
        self.covers_all = bool(self.valid.all())

    def rectify(self, rgb: RgbImage) -> RgbImage:
        """
        Rectify one image.

        Parameters
        ----------
        rgb : uint8 [H, W, 3]
            Raw image of the camera's size.

        Returns
        -------
        uint8 [H, W, 3]
            Bilinearly interpolated; black outside the raw image.

        Raises
        ------
        InputError
            If the image size differs from the camera's.
        """
        expected = (self.camera.height, self.camera.width, 3)
        if rgb.shape != expected:
            raise InputError(f'`rgb` must have the shape {expected}; got {rgb.shape}')
        return self._remap(rgb)

    def rectify_depth(self, depth_m: FloatImage) -> FloatImage:
        """
        Rectify a depth image that is registered to the raw image.

        Parameters
        ----------
        depth_m : float32 [H, W]
            Depth image of the camera's size, m.

        Returns
        -------
        float32 [H, W]
            Nearest neighbour, since interpolation would blend depths across edges; NaN outside
            the raw image.

        Raises
        ------
        InputError
            If the size differs from the camera's.
        """
        expected = (self.camera.height, self.camera.width)
        if depth_m.shape != expected:
            raise InputError(f'`depth_m` must have the shape {expected}; got {depth_m.shape}')
        result = cv2.remap(depth_m, self._maps[0], self._maps[1], cv2.INTER_NEAREST,
                           borderMode=cv2.BORDER_CONSTANT, borderValue=float('nan'))
        return np.asarray(result, np.float32)

    def _remap(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        result = cv2.remap(image, self._maps[0], self._maps[1], cv2.INTER_LINEAR)
        return np.asarray(result, np.uint8)


class Rectification:
    """
    Find camera and rectifier of processed images; keep the rectifier of the last calibration.

    Parameters
    ----------
    rectified : bool
        Whether the images are already rectified, so that P describes them.
    """

    def __init__(self, *, rectified: bool = False) -> None:
        self._rectified = rectified
        self._rectifier: Rectifier | None = None

    def find(self, camera: Camera) -> tuple[Camera, Rectifier | None]:
        """
        Return the camera of the processed image, and the rectifier that the image needs.

        Parameters
        ----------
        camera : Camera
            As the camera_info of the image describes it.

        Returns
        -------
        (Camera, Rectifier or None)
            The camera has no distortion; None if the image stays as it is.

        Raises
        ------
        InputError
            If the image is raw, and `Rectifier` or `Camera.distortion` rejects the camera.
        """
        if self._rectified:
            return camera.rectified(), None
        if not camera.needs_rectification:
            camera.distortion()  # the zeros of an unknown model may mean anything
            return camera.undistorted(), None
        return camera.rectified(), self.rectifier(camera)

    def rectifier(self, camera: Camera) -> Rectifier:
        """Return the rectifier of a camera; raises as `Rectifier` does."""
        if self._rectifier is None or self._rectifier.camera != camera:
            self._rectifier = Rectifier(camera)
        return self._rectifier


def _constant_matrix(name: str, values: object, shape: tuple[int, int]) -> Matrix:
    """Return a read-only float64 copy of a matrix; raise InputError if it is invalid."""
    matrix: Matrix = np.array(values, np.float64)
    if matrix.shape != shape:
        raise InputError(f'`{name}` must have the shape {shape}; got {matrix.shape}')
    if not np.all(np.isfinite(matrix)):
        raise InputError(f'`{name}` must be finite; got {matrix.tolist()}')
    matrix.flags.writeable = False
    return matrix


def _rectification_maps(camera: Camera) -> tuple[NDArray[np.int16], NDArray[np.uint16]]:
    """Compute fixed-point maps for cv2.remap, as image_geometry's rectifyImage does."""
    if not camera.is_calibrated:
        raise InputError('`camera` must be calibrated to be rectified; got K[0, 0] = 0')
    model = cv2.fisheye if camera.is_fisheye else cv2
    maps = model.initUndistortRectifyMap(
        camera.K, np.array(camera.distortion()), camera.R, camera.P[:, :3],
        (camera.width, camera.height), cv2.CV_16SC2)
    return np.asarray(maps[0], np.int16), np.asarray(maps[1], np.uint16)


def _known_model(name: str) -> str | None:
    """Return the key of DISTORTION_COUNTS that a name means; None if it is unknown."""
    plain = _without_punctuation(name)
    return next((each for each in DISTORTION_COUNTS if _without_punctuation(each) == plain), None)


def _without_punctuation(name: str) -> str:
    return ''.join(filter(str.isalnum, name.lower()))
