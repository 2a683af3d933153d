"""Dataclasses shared by the scene modules: light, scene, camera, quality, rendered frame."""
from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

from embreex import rtcore_scene
import numpy as np
from numpy.typing import NDArray

from scenes.material_table import Materials
from scenes.meshes import Floats, Mesh


@dataclass(frozen=True)
class Light:
    """
    A light source that is sampled with shadow rays.

    Attributes
    ----------
    kind : str
        'rect': one-sided panel or window at `center` with full edges `u` and `v` (m) that emits
        along u x v; `rgb` is its radiance. 'bulb': sphere of `radius_m` at `center`; `rgb` is its
        intensity. 'sun': `center` is the unit direction to it, `radius_m` the tangent of its
        angular radius, `rgb` the irradiance on a surface that faces it.
    """

    kind: str
    center: Floats
    rgb: Floats
    u: Floats = field(default_factory=lambda: np.zeros(3, np.float32))
    v: Floats = field(default_factory=lambda: np.zeros(3, np.float32))
    radius_m: float = 0.0


@dataclass(frozen=True)
class Obstacle:
    """The axis-aligned bounding box of a named object in the map frame, metres."""

    name: str
    min_m: tuple[float, float, float]
    max_m: tuple[float, float, float]


@dataclass(frozen=True)
class View:
    """
    A region of camera positions and a region of points that the cameras look at.

    Attributes
    ----------
    eye, target : [2,3] float32
        Lower and upper corner of each box in the map frame, m.
    floor_m : float or None
        Height of the floor, if cameras are carried by a robot, a hand, a head or a ceiling, which
        decides height and pitch; None: they are anywhere in `eye` and look exactly at a target.
    """

    eye: Floats
    target: Floats
    floor_m: float | None = None


@dataclass(frozen=True)
class Scene:
    """
    Geometry, materials, lights and sky of a place; map frame, metres, z up.

    Attributes
    ----------
    place : str
        Kind of place.
    sky : [h,w,3] float32
        Linear radiance by direction: columns by azimuth, rows from zenith to nadir.
    sky_irradiates : bool
        Whether the sky illuminates surfaces; false where window lights replace it.
    ambient : [3] float32
        Irradiance that approximates all further bounces.
    panes : Mesh or None
        Clear glass and the silver of mirrors: they change the image, but cast no shadows and
        have no depth of their own, see `glass`.
    """

    place: str
    mesh: Mesh
    materials: Materials
    lights: tuple[Light, ...]
    sky: Floats
    sky_irradiates: bool
    ambient: Floats
    views: tuple[View, ...]
    obstacles: tuple[Obstacle, ...] = ()
    panes: Mesh | None = None

    @cached_property
    def glazing(self) -> Scene | None:
        """Return the panes as a scene of their own, in which rays find them; None without."""
        return None if self.panes is None else replace(self, mesh=self.panes, panes=None)

    @property
    def embree(self) -> rtcore_scene.EmbreeScene:
        """Return the ray-tracing hierarchy of the mesh."""
        return self.mesh.embree

    @cached_property
    def mean_albedo(self) -> Floats:
        """Compute the mean linear reflectance of each material, [m,3]."""
        return self.materials.mean_albedo()

    @property
    def face_normals(self) -> Floats:
        """Return the unit geometric normal of each triangle, [n,3]."""
        return self.mesh.face_normals

    @cached_property
    def uv_per_m(self) -> Floats:
        """Compute the texture units per metre of each triangle, [n]."""
        edges, uv = np.diff(self.mesh.triangles, axis=1), np.diff(self.mesh.uv, axis=1)
        area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=-1)
        uv_area = np.abs(uv[:, 0, 0] * uv[:, 1, 1] - uv[:, 0, 1] * uv[:, 1, 0])
        ratio = np.maximum(uv_area, 1e-12) / np.maximum(area, 1e-12)
        return np.asarray(np.sqrt(ratio), np.float32)


@dataclass(frozen=True)
class Sensor:
    """
    Exposure, lens, noise and image processing of a camera.

    Attributes
    ----------
    exposure_ev : float
        Exposure compensation, stops.
    gain : float or None
        Factor from radiance to exposed light; metered on each image if None.
    keeps_highlights : bool
        Whether metering darkens the image to keep bright windows and lamps; otherwise they
        blow out.
    white_balance : (float, float, float)
        Channel gains.
    noise : float
        Standard deviation of the noise at mid grey, in 0..1.
    mosaic : bool
        Whether each pixel measures one colour, and the others are interpolated (Bayer pattern).
    vignette : float
        Fraction of light lost in the corners.
    blur_px : float
        Standard deviation of the lens blur, px.
    motion_px : (float, float)
        Motion of the image during the exposure, px to the right and down.
    colour_fringe : float
        Relative difference in size between the red and the blue image.
    contrast, saturation : float
        1 is neutral; a larger contrast darkens shadows and brightens highlights.
    sharpening : float
        Strength with which the camera sharpens the image.
    jpeg_quality : int or None
        1 to 100; None does not compress.
    border : (float, float, float, float)
        Part of the image that a plain border covers at the left, top, right and bottom, in 0..1;
        the depth there is 0, not measured.
    border_grey : int
        0 is black, 255 white.
    seed : int
        Seed of the noise.
    """

    exposure_ev: float = 0.0
    gain: float | None = None
    keeps_highlights: bool = True
    white_balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    noise: float = 0.0
    mosaic: bool = False
    vignette: float = 0.0
    blur_px: float = 0.0
    motion_px: tuple[float, float] = (0.0, 0.0)
    colour_fringe: float = 0.0
    contrast: float = 1.0
    saturation: float = 1.0
    sharpening: float = 0.0
    jpeg_quality: int | None = None
    border: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    border_grey: int = 0
    seed: int = 0


@dataclass(frozen=True)
class RenderCamera:
    """
    A pinhole camera to render with: intrinsics, pose in the map frame and sensor.

    Attributes
    ----------
    width, height : int
        Pixels.
    K : [3,3] float64
        Intrinsics; pixel centres at integer coordinates.
    rotation : [3,3] float64
        Optical axes (x right, y down, z forward) as columns, in the map frame.
    position : [3] float64
        Optical centre in the map frame, m.
    """

    width: int
    height: int
    K: NDArray[np.float64]
    rotation: NDArray[np.float64]
    position: NDArray[np.float64]
    sensor: Sensor = Sensor()


@dataclass(frozen=True)
class Quality:
    """
    Number of rays and texture resolution of a rendering.

    Attributes
    ----------
    passes : int
        Light and bounce samples per pixel; averaging over 4x4 tiles makes them count 16 times.
    edge_samples : int
        Extra rays through each pixel on an edge.
    texture_size : int
        Side of each texture, px.
    """

    passes: int = 1
    edge_samples: int = 4
    texture_size: int = 256


BULK = Quality()
FINE = Quality(passes=6, edge_samples=8, texture_size=1024)


@dataclass(frozen=True)
class RenderedFrame:
    """
    An image and its exact depth.

    Attributes
    ----------
    rgb : [H,W,3] uint8
    depth_m : [H,W] float32
        Depth along the optical axis at each pixel's centre, m; +inf on the sky, 0 in a border of
        the image.
    K : [3,3] float64
    """

    rgb: NDArray[np.uint8]
    depth_m: Floats
    K: NDArray[np.float64]
