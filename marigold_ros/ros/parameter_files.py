"""
What parameter files give to a node, as rcl reads them.

Launch files import this module, in a Python that may have nothing but ROS.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.node import Node

from marigold_ros.depth.errors import ConfigError
from marigold_ros.ros.rclpy_workarounds import find_given_parameters
from marigold_ros.ros.startup import init_rclpy
from marigold_ros.ros.tools.processes import find_free_domain


def read_parameters(name: str, namespace: str, arguments: Sequence[str]) -> dict[str, Any]:
    """
    Read what ROS arguments give to a node of this name: `-p` and `--params-file`, in their order.

    rcl itself reads them, for a node that exists for milliseconds in a domain of its own; so
    wildcards, nested keys and the order of sections mean what they mean to the node.

    Parameters
    ----------
    name, namespace : str
        Of the node.
    arguments : sequence of str
        ROS arguments, without `--ros-args`.

    Returns
    -------
    dict of str to object
        ROS name -> value.

    Raises
    ------
    ConfigError
        If a file or an argument is invalid.
    """
    context = rclpy.Context()
    init_rclpy(['--ros-args', *arguments], context=context, domain_id=find_free_domain())
    try:
        node = rclpy.create_node(name, namespace=namespace, context=context, enable_rosout=False,
                                 start_parameter_services=False)
        return find_given_parameters(node)
    except ParameterException as err:
        raise ConfigError(str(err)) from None
    finally:
        rclpy.shutdown(context=context)


def warn_of_unused_files(node: Node, arguments: Sequence[str]) -> None:
    """
    Log a warning for each `--params-file` in the arguments that has no section for the node.

    Raises
    ------
    ConfigError
        If a file is invalid.
    """
    for option, path in pairwise(arguments):
        if option == '--params-file' and not read_parameters(
                node.get_name(), node.get_namespace(), [option, path]):
            name = node.get_fully_qualified_name()
            node.get_logger().warning(f'{path} has no parameters for {name}: a section of it must '
                                      f'be named {name} or /**')
