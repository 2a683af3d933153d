"""Find files in the share folders of ROS packages, also without AMENT_PREFIX_PATH."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from marigold_ros.depth.errors import ConfigError

LARGE_IMAGES_PROFILE = 'config/fastdds_large_images.xml'
# Kilted, with rclpy 9, reads both, and warns of the first; Jazzy, with rclpy 7, only the first.
PROFILE_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')


def find_share_file(package: str, relative: str) -> Path | None:
    """
    Find a file in a package's share folder.

    Parameters
    ----------
    package : str
        An importable ROS package.
    relative : str
        Path below share/PACKAGE; in a source tree, below the folder of package.xml.

    Returns
    -------
    Path or None
        None if the package is not installed or has no such file.
    """
    try:
        module = Path(import_module(package).__file__ or '')
    except ImportError:
        return None
    for prefix in module.parents:
        path = prefix / 'share' / package / relative
        if path.exists():
            return path
        if (prefix / 'package.xml').is_file() and (prefix / relative).exists():
            return prefix / relative
    return None


def require_share_file(relative: str) -> Path:
    """
    Find a file in the share folder of marigold_ros.

    Raises
    ------
    ConfigError
        If the file does not exist.
    """
    path = find_share_file('marigold_ros', relative)
    if path is None:
        raise ConfigError(f'installation of marigold_ros is incomplete: {relative} is missing')
    return path


def select_large_image_profile(environment: Mapping[str, str]) -> dict[str, str]:
    """
    Return the variable that selects the Fast DDS profile for large images, with its value.

    The profile of the publisher matters: a process that publishes images is started with it, or
    sets it before rclpy.init.  Empty if the user has selected a profile.
    """
    read = PROFILE_VARIABLES[:1 if int(version('rclpy').split('.')[0]) < 8 else 2]
    if any(variable in environment for variable in read):
        return {}
    return {read[-1]: str(require_share_file(LARGE_IMAGES_PROFILE))}
