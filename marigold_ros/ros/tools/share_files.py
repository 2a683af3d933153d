"""Files that packages share, also where no AMENT_PREFIX_PATH is set: in a virtual environment."""

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
        Path below share/<package>; in a source tree, below the folder of package.xml.

    Returns
    -------
    Path or None
        None if the package is not installed or shares no such file.
    """
    try:
        module = Path(import_module(package).__file__ or '')
    except ImportError:
        return None
    for prefix in module.parents:
        shared = prefix / 'share' / package / relative
        if shared.exists():
            return shared
        if (prefix / 'package.xml').is_file() and (prefix / relative).exists():
            return prefix / relative
    return None


def require_share_file(relative: str) -> Path:
    """
    Find a file that marigold_ros brings along.

    Raises
    ------
    ConfigError
        If it is not there.
    """
    path = find_share_file('marigold_ros', relative)
    if path is None:
        raise ConfigError(f'marigold_ros is not completely installed: {relative} is missing')
    return path


def use_large_image_profile(environment: MutableMapping[str, str] = os.environ) -> None:
    """
    Let Fast DDS carry large images, unless the user has chosen a profile.

    It is the sender's profile that counts, so whoever publishes images calls this before
    rclpy.init.
    """
    for variable in PROFILE_VARIABLES:
        if variable not in environment:
            environment[variable] = str(require_share_file(LARGE_IMAGES_PROFILE))
