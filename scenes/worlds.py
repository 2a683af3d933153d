"""Load mesh worlds as scenes: Gazebo worlds with their models, or single mesh files."""
from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
import xml.etree.ElementTree as ElementTree

import numpy as np
import trimesh

from marigold_ros.depth.errors import MarigoldError
from scenes import skies
from scenes.draws import pick
from scenes.mesh_files import Body, load_bodies, make_part, Matrix, MESH_SUFFIXES, Part
from scenes.meshes import Floats, join
from scenes.scene_builder import SceneBuilder
from scenes.scene_types import Light, Scene, View

WORLD_SUFFIXES = ('.world', '.sdf')
EYE_HEIGHT_M = (0.2, 1.8)
TARGET_HEIGHT_M = (0.0, 2.2)
# Mean intensity of the bulb that replaces a point light of a world.
BULB_INTENSITY = 6.0


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
    file = pick(rng, files)
    b = SceneBuilder(rng, texture_size)
    parts, view = _read_world(file, texture_size)
    b.add(join([part.to_mesh(b.palette.solid(part.colour, gloss=0.1) if part.image is None
                             else b.palette.photo(part.image)) for part in parts]))
    lamps = _read_lamps(file)
    for position in lamps:
        warm = np.array([1.0, rng.uniform(0.75, 1.0), rng.uniform(0.5, 1.0)], np.float32)
        b.lights.append(Light('bulb', position, warm * np.float32(
            BULB_INTENSITY * rng.uniform(0.5, 1.5)), radius_m=0.08))
    if not lamps or rng.random() < 0.5:
        b.lights.append(skies.make_sun(rng, rng.uniform(3, 9)))
    sky = skies.make_sky(rng, rng.uniform(0.8, 3.0))
    return b.build(file.stem, sky, [view], sky_irradiates=True)


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


@lru_cache(maxsize=8)
def _read_world(file: Path, texture_size: int) -> tuple[tuple[Part, ...], View]:
    """Read every visible mesh in the map frame, and the view of the world."""
    if file.suffix.lower() in WORLD_SUFFIXES:
        bodies = tuple(_iterate_bodies(ElementTree.parse(file).getroot(), np.eye(4), file))
    else:
        bodies = tuple(load_bodies(file))
    if not bodies:
        raise MarigoldError(f'`path` must contain at least one visible mesh; got {str(file)!r}')
    return tuple(make_part(pose, body, texture_size) for pose, body in bodies), _bounds_view(
        bodies)


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
                for local, body in load_bodies(_resolve(mesh.findtext('uri', ''), file)):
                    yield pose @ _pose(child) @ scale @ local, body


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
            # Some worlds were written where file names ignore case.
            for same in candidate.parent.glob('*'):
                if same.name.lower() == candidate.name.lower():
                    return same
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
