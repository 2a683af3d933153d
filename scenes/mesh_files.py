"""Read mesh files as textured parts in metres."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
import trimesh
from trimesh.visual.texture import TextureVisuals

from marigold_ros.depth.errors import MarigoldError
from scenes.meshes import box_uv, Floats, Mesh, repeat_material

MESH_SUFFIXES = ('.dae', '.glb', '.gltf', '.obj', '.ply', '.stl')

Matrix = NDArray[np.float64]
Body = tuple[Matrix, trimesh.Trimesh]


@dataclass(frozen=True)
class Part:
    """
    Triangles of one material.

    Attributes
    ----------
    triangles, normals : [n,3,3] float32
        As of `Mesh`.
    uv : [n,3,2] float32
        Over the image, or metres without an image.
    image : [size,size,3] uint8 or None
        Colour texture, sRGB.
    colour : [3] float32
        Linear reflectance without an image.
    """

    triangles: Floats
    normals: Floats
    uv: Floats
    image: NDArray[np.uint8] | None
    colour: Floats

    def to_mesh(self, material: int) -> Mesh:
        """
        Return the part as a mesh of a material.

        Returns
        -------
        Mesh
        """
        return Mesh(self.triangles, self.normals, self.uv,
                    repeat_material(material, len(self.triangles)))


def load_bodies(file: Path) -> Iterator[Body]:
    """
    Yield the bodies of a mesh file with their poses, in metres.

    Yields
    ------
    ([4,4] float64, trimesh.Trimesh)

    Raises
    ------
    MarigoldError
        If the package that reads the format is not installed.
    """
    try:
        loaded = trimesh.load_scene(file, resolver=_RelativeFileResolver(file.parent))
    except ImportError as err:
        raise MarigoldError(f'`file` needs a package to be read: {err}; got {str(file)!r}'
                            ) from err
    unit = trimesh.units.unit_conversion(loaded.units, 'meters') if loaded.units else 1.0
    for name in loaded.graph.nodes_geometry:
        pose, geometry = loaded.graph[name]
        body = loaded.geometry[geometry]
        if isinstance(body, trimesh.Trimesh) and len(body.faces):
            yield np.diag([unit, unit, unit, 1.0]) @ pose, body


def make_part(pose: Matrix, body: trimesh.Trimesh, texture_size: int) -> Part:
    """
    Convert a body to flat-shaded triangles at its pose.

    Parameters
    ----------
    pose : [4,4] float64
    body : trimesh.Trimesh
    texture_size : int
        Side to which the texture is resized, px.

    Returns
    -------
    Part
    """
    moved = trimesh.transform_points(body.vertices, pose).astype(np.float32)
    triangles = moved[body.faces if np.linalg.det(pose[:3, :3]) > 0 else body.faces[:, ::-1]]
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    flat = normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    corners = np.repeat(flat[:, None], 3, axis=1).astype(np.float32)
    image = _image(body)
    uv = getattr(body.visual, 'uv', None)
    if image is not None and uv is not None:
        small = cv2.resize(image, (texture_size, texture_size), interpolation=cv2.INTER_AREA)
        return Part(triangles, corners, np.nan_to_num(np.asarray(uv, np.float32))[body.faces],
                    np.asarray(small, np.uint8), np.ones(3, np.float32))
    textured = isinstance(body.visual, TextureVisuals)
    colour = body.visual.material.main_color if textured else body.visual.main_color
    # Approximate inverse of the sRGB transfer curve.
    linear = np.asarray((np.asarray(colour[:3], np.float32) / 255) ** 2.2, np.float32)
    return Part(triangles, corners, box_uv(triangles, corners), None, linear)


@dataclass(frozen=True)
class _RelativeFileResolver:
    """Read textures from sibling folders too, which trimesh's own resolver rejects."""

    folder: Path

    def get(self, name: str) -> bytes:
        """Read a file by its path relative to the mesh file."""
        return (self.folder / name.strip()).read_bytes()

    def __getitem__(self, name: str) -> bytes:
        """Do the same for the readers that expect a mapping."""
        return self.get(name)


def _image(body: trimesh.Trimesh) -> NDArray[np.uint8] | None:
    """Return a body's colour texture, uint8 [h,w,3], or None."""
    if not isinstance(body.visual, TextureVisuals):
        return None
    material = body.visual.material
    image = getattr(material, 'image', None) or getattr(material, 'baseColorTexture', None)
    return None if image is None else np.asarray(image.convert('RGB'), np.uint8)
