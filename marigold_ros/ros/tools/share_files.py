"""Find files in the share folders of ROS packages, also without AMENT_PREFIX_PATH."""

from __future__ import annotations

from collections.abc import MutableMapping
from importlib import import_module
import os
from pathlib import Path

from marigold_ros.depth.errors import ConfigError

LARGE_IMAGES_PROFILE = 'config/fastdds_large_images.xml'
# Jazzy's Fast DDS reads the first, Kilted's the second.
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


def use_large_image_profile(environment: MutableMapping[str, str] = os.environ) -> None:
    """
    Select the Fast DDS profile for large images, unless the user has set a profile.

    The profile of the publisher matters: a process that publishes images calls this before
    rclpy.init.
    """
    for variable in PROFILE_VARIABLES:
        if variable not in environment:
            environment[variable] = str(require_share_file(LARGE_IMAGES_PROFILE))
