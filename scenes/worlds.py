"""Load mesh worlds as scenes: Gazebo worlds with their models, or single mesh files."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
import xml.etree.ElementTree as ElementTree

import numpy as np
from numpy.typing import NDArray
import trimesh
from trimesh.visual.texture import TextureVisuals

from marigold_ros.depth.errors import MarigoldError
from scenes import skies
from scenes.materials import Palette
from scenes.meshes import box_uv, Floats, join, Mesh, repeat_material
from scenes.scene_builder import SceneBuilder
from scenes.scene_types import Light, Scene, View

MESH_SUFFIXES = ('.dae', '.glb', '.gltf', '.obj', '.ply', '.stl')
WORLD_SUFFIXES = ('.world', '.sdf')
EYE_HEIGHT_M = (0.2, 1.8)
TARGET_HEIGHT_M = (0.0, 2.2)
# Mean intensity of the bulb that replaces a point light of a world.
BULB_INTENSITY = 6.0

Matrix = NDArray[np.float64]
Body = tuple[Matrix, trimesh.Trimesh]


def sample_world(path: Path, rng: np.random.Generator, texture_size: int) -> Scene:
    """
    Load a mesh world as a scene; randomize its sky, sun and lamp brightness.

    Parameters
    ----------
    path : Path
        A `.world`, `.sdf` or mesh file with z up, or a folder, from which one `.world` file is
        chosen at random, or one mesh file if it has no `.world` file.
    rng : numpy.random.Generator
    texture_size : int
        Side of each texture, px, a power of two.

    Returns
    -------
    Scene

    Raises
    ------
    MarigoldError
        If no world is found, or the world has no visible mesh.
    """
    files = find_world_files(path)
    file = files[int(rng.integers(len(files)))]
    b = SceneBuilder(rng, texture_size)
    bodies = _read_bodies(file)
    b.add(join([_to_mesh(pose, body, b.palette) for pose, body in bodies]))
    lamps = _read_lamps(file)
    for position in lamps:
        warm = np.array([1.0, rng.uniform(0.75, 1.0), rng.uniform(0.5, 1.0)], np.float32)
        b.lights.append(Light('bulb', position, warm * np.float32(
            BULB_INTENSITY * rng.uniform(0.5, 1.5)), radius_m=0.08))
    if not lamps or rng.random() < 0.5:
        b.lights.append(skies.make_sun(rng, rng.uniform(3, 9)))
    sky = skies.make_sky(rng, rng.uniform(0.8, 3.0))
    return b.build(file.stem, sky, [_bounds_view(bodies)], sky_irradiates=True)


def find_world_files(path: Path) -> list[Path]:
    """
    List the `.world` files of a folder, or its mesh files if it has none; return a file as is.

    Raises
    ------
    MarigoldError
        If the folder has neither.
    """
    if path.is_file():
        return [path]
    for suffixes in (('.world',), MESH_SUFFIXES):
        found = sorted(f for f in path.rglob('*') if f.suffix.lower() in suffixes)
        if found:
            return found
    raise MarigoldError(f'`path` must be a .world, .sdf or mesh file, or a folder with one; '
                        f'got {str(path)!r}')


@lru_cache(maxsize=4)
def _read_bodies(file: Path) -> tuple[Body, ...]:
    """Read every visible mesh with its pose in the map frame."""
    if file.suffix.lower() in WORLD_SUFFIXES:
        bodies = tuple(_iterate_bodies(ElementTree.parse(file).getroot(), np.eye(4), file))
    else:
        bodies = tuple(_load_bodies(file))
    if not bodies:
        raise MarigoldError(f'`path` must contain at least one visible mesh; got {str(file)!r}')
    return bodies


def _iterate_bodies(node: ElementTree.Element, parent: Matrix, file: Path) -> Iterator[Body]:
    """Yield all meshes below an SDF element with their poses in the map frame."""
    pose = parent @ _pose(node)
    for child in node:
        if child.tag == 'include':
            model = _resolve(child.findtext('uri', ''), file) / 'model.sdf'
            yield from _iterate_bodies(ElementTree.parse(model).getroot(), pose @ _pose(child),
                                       model)
        elif child.tag in ('world', 'model', 'link'):
            yield from _iterate_bodies(child, pose, file)
        elif child.tag == 'visual':
            mesh = child.find('geometry/mesh')
            if mesh is not None:
                scale = np.diag([*_numbers(mesh.findtext('scale'), (1, 1, 1)), 1.0])
                for local, body in _load_bodies(_resolve(mesh.findtext('uri', ''), file)):
                    yield pose @ _pose(child) @ scale @ local, body


def _load_bodies(file: Path) -> Iterator[Body]:
    """Yield the parts of a mesh file, converted to metres."""
    loaded = trimesh.load_scene(file, resolver=_RelativeFileResolver(file.parent))
    unit = trimesh.units.unit_conversion(loaded.units, 'meters') if loaded.units else 1.0
    for name in loaded.graph.nodes_geometry:
        pose, geometry = loaded.graph[name]
        body = loaded.geometry[geometry]
        if isinstance(body, trimesh.Trimesh) and len(body.faces):
            yield np.diag([unit, unit, unit, 1.0]) @ pose, body


@dataclass(frozen=True)
class _RelativeFileResolver:
    """Read textures from sibling folders too, which trimesh's own resolver rejects."""

    folder: Path

    def get(self, name: str) -> bytes:
        """Read a file by its path relative to the mesh file."""
        return (self.folder / name.strip()).read_bytes()


def _resolve(uri: str, file: Path) -> Path:
    """
    Find the file of a `model://name/...` or `file://...` URI or a relative path.

    Raises
    ------
    MarigoldError
        If neither a parent folder of `file` nor its `models` folder contains the path.
    """
    relative = uri.split('://')[-1].strip()
    for folder in file.resolve().parents:
        for candidate in (folder / relative, folder / 'models' / relative):
            if candidate.exists():
                return candidate
    raise MarigoldError(f'`uri` in {str(file)!r} must name an existing file; got {uri!r}')


def _pose(node: ElementTree.Element) -> Matrix:
    """Return the 4x4 matrix of an element's pose: x y z roll pitch yaw, identity if absent."""
    x, y, z, roll, pitch, yaw = _numbers(node.findtext('pose'), (0, 0, 0, 0, 0, 0))
    matrix = np.asarray(trimesh.transformations.euler_matrix(roll, pitch, yaw, 'sxyz'))
    matrix[:3, 3] = x, y, z
    return matrix


def _numbers(text: str | None, default: tuple[float, ...]) -> tuple[float, ...]:
    """Parse numbers separated by blanks; return `default` for an empty text."""
    return default if text is None or not text.strip() else tuple(map(float, text.split()))


def _read_lamps(file: Path) -> list[Floats]:
    """Read the positions of a world's point lights, m."""
    if file.suffix.lower() not in WORLD_SUFFIXES:
        return []
    lights = ElementTree.parse(file).getroot().iter('light')
    return [_pose(light)[:3, 3].astype(np.float32) for light in lights
            if light.get('type') == 'point']


def _to_mesh(pose: Matrix, body: trimesh.Trimesh, palette: Palette) -> Mesh:
    """Convert a loaded body to triangles of one material in the map frame."""
    moved = trimesh.transform_points(body.vertices, pose).astype(np.float32)
    triangles = moved[body.faces if np.linalg.det(pose[:3, :3]) > 0 else body.faces[:, ::-1]]
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    flat = normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    corners = np.repeat(flat[:, None], 3, axis=1).astype(np.float32)
    image = _image(body)
    uv = getattr(body.visual, 'uv', None)
    if image is not None and uv is not None:
        return Mesh(triangles, corners, np.asarray(uv, np.float32)[body.faces],
                    repeat_material(palette.photo(image), len(triangles)))
    textured = isinstance(body.visual, TextureVisuals)
    colour = body.visual.material.main_color if textured else body.visual.main_color
    # Approximate inverse of the sRGB transfer curve.
    linear = (np.asarray(colour[:3], np.float32) / 255) ** 2.2
    return Mesh(triangles, corners, box_uv(triangles, corners),
                repeat_material(palette.solid(linear, gloss=0.1), len(triangles)))


def _image(body: trimesh.Trimesh) -> NDArray[np.uint8] | None:
    """Return a body's colour texture, uint8 [h,w,3], or None."""
    if not isinstance(body.visual, TextureVisuals):
        return None
    material = body.visual.material
    image = getattr(material, 'image', None) or getattr(material, 'baseColorTexture', None)
    return None if image is None else np.asarray(image.convert('RGB'), np.uint8)


def _bounds_view(bodies: tuple[Body, ...]) -> View:
    """Return a view at the heights of robots and persons within the bounds of the bodies."""
    points = np.concatenate([trimesh.transform_points(body.bounds, pose)
                             for pose, body in bodies])
    low, high = np.quantile(points, 0.05, axis=0), np.quantile(points, 0.95, axis=0)
    floor = float(low[2])

    def region(heights: tuple[float, float]) -> Floats:
        corners = [[*low[:2], floor + heights[0]], [*high[:2], floor + heights[1]]]
        return np.asarray(corners, np.float32)

    return View(region(EYE_HEIGHT_M), region(TARGET_HEIGHT_M), floor)
