"""The dataclasses that cross the scene modules: lights, scene, camera, quality, rendered frame."""
from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from embreex import mesh_construction, rtcore_scene
import numpy as np
from numpy.typing import NDArray

from scenes.materials import Materials
from scenes.meshes import Floats, Mesh


@dataclass(frozen=True)
class Light:
    """
    A light that shadow rays are sent to.

    Attributes
    ----------
    kind : str
        'rect': one-sided panel or window, `center` with full edges `u`, `v`, shining along u x v,
        `rgb` its radiance; 'bulb': a sphere of `radius_m` at `center`, `rgb` its intensity;
        'sun': `center` the unit direction to it, `radius_m` the tangent of its angular radius,
        `rgb` its irradiance face on.
    """

    kind: str
    center: Floats
    rgb: Floats
    u: Floats = field(default_factory=lambda: np.zeros(3, np.float32))
    v: Floats = field(default_factory=lambda: np.zeros(3, np.float32))
    radius_m: float = 0.0


@dataclass(frozen=True)
class Obstacle:
    """A named thing's axis-aligned box in the map frame, metres."""

    name: str
    min_m: tuple[float, float, float]
    max_m: tuple[float, float, float]


@dataclass(frozen=True)
class View:
    """
    A region that cameras stand in and one that they look at.

    Attributes
    ----------
    eye, target : [2,3] float32
        Corners of boxes, m.
    """

    eye: Floats
    target: Floats


@dataclass(frozen=True)
class Scene:
    """
    A place: geometry, materials, lights, sky; map frame, metres, z up.

    Attributes
    ----------
    sky : [h,w,3] float32
        Linear radiance by direction: azimuth across, zenith first.
    sky_irradiates : bool
        Whether surfaces gather light from the sky; false where window lights stand for it.
    ambient : [3] float32
        Irradiance that stands for all later bounces.
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

    @cached_property
    def embree(self) -> rtcore_scene.EmbreeScene:
        """Build the ray-tracing hierarchy once."""
        scene = rtcore_scene.EmbreeScene()
        mesh_construction.TriangleMesh(scene, np.ascontiguousarray(self.mesh.triangles))
        return scene

    @cached_property
    def mean_albedo(self) -> Floats:
        """Mean linear reflectance of each material, [m,3]."""
        return self.materials.mean_albedo()

    @cached_property
    def face_normals(self) -> Floats:
        """Compute unit geometric normals, [n,3]."""
        edges = np.diff(self.mesh.triangles, axis=1)
        normals = np.cross(edges[:, 0], edges[:, 1])
        length = np.linalg.norm(normals, axis=-1, keepdims=True)
        return np.asarray(normals / np.maximum(length, 1e-20), np.float32)

    @cached_property
    def uv_per_m(self) -> Floats:
        """Texture units per metre on each triangle, [n]."""
        edges, uv = np.diff(self.mesh.triangles, axis=1), np.diff(self.mesh.uv, axis=1)
        area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=-1)
        uv_area = np.abs(uv[:, 0, 0] * uv[:, 1, 1] - uv[:, 0, 1] * uv[:, 1, 0])
        ratio = np.maximum(uv_area, 1e-12) / np.maximum(area, 1e-12)
        return np.asarray(np.sqrt(ratio), np.float32)


@dataclass(frozen=True)
class Sensor:
    """
    What a camera does to light.

    Attributes
    ----------
    exposure_ev : float
        Stops above the exposure.
    gain : float or None
        Exposure, the factor on radiance; metered on each image if None.
    white_balance : (float, float, float)
        Channel gains.
    noise : float
        Deviation of the noise at mid grey, in 0..1.
    vignette : float
        Share of light lost in the corners.
    blur_px : float
        Deviation of the lens blur.
    contrast : float
        1 is neutral; more makes shadows darker and lights brighter.
    seed : int
    """

    exposure_ev: float = 0.0
    gain: float | None = None
    white_balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    noise: float = 0.0
    vignette: float = 0.0
    blur_px: float = 0.0
    contrast: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Camera:
    """
    A pinhole camera in a scene.

    Attributes
    ----------
    width, height : int
        Pixels.
    K : [3,3] float64
        Intrinsics; pixel centres at whole numbers.
    rotation : [3,3] float64
        Optical axes (x right, y down, z forward) as columns, in the map frame.
    position : [3] float64
        Of the optical centre in the map frame, m.
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
    How many rays are spent.

    Attributes
    ----------
    passes : int
        Light and bounce samples a pixel; each is shared by a 4x4 tile, so 16 times as many count.
    edge_samples : int
        Extra rays through each pixel on an edge.
    texture_size : int
        Pixels a side of each texture.
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
        Metres along the optical axis through each pixel's centre; +inf where there is only sky.
    K : [3,3] float64
    """

    rgb: NDArray[np.uint8]
    depth_m: Floats
    K: NDArray[np.float64]
