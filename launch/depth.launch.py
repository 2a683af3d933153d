"""
Start depth_node, and optionally rviz2.

    ros2 launch marigold_ros depth.launch.py image_topic:=/usb_cam/image_raw

An argument overrides the value in the parameter file; an empty argument does not.  The node
configures and activates itself (parameter `autostart`).
"""

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
import yaml

CONFIG = Path(get_package_share_directory('marigold_ros')) / 'config'
# Fast DDS reads the first up to Jazzy and the second from Kilted on.
PROFILE_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
ARGUMENTS = {
    'params_file': (str(CONFIG / 'depth.yaml'), 'Parameter file'),
    'checkpoint': ('', 'Name of an embedded checkpoint, folder in Marigold layout, or Hugging '
                   'Face id'),
    'cameras': ('', 'Names of the cameras, for example [front, rear]'),
    'image_topic': ('', 'Image topic of a single camera, raw or compressed; '
                    'default: <camera>/image_raw'),
    'camera_info_topic': ('', 'camera_info topic of a single camera; '
                          'default: camera_info in the namespace of the image topic'),
    'latency_cap_ms': ('', 'Largest time from receipt to publication, ms; 0: no cap'),
    'device': ('', 'auto, cpu, cuda or cuda:<index>'),
    'use_sim_time': ('', 'true: use the time of /clock'),
    'namespace': ('', 'Namespace of the node and of its relative topics'),
    'rviz': ('false', 'true: start rviz2, too'),
}
# Launch argument -> function that converts its text to the parameter of the same name.
PARAMETERS = {
    'checkpoint': str,
    'cameras': lambda text: [name.strip() for name in text.strip('[] ').split(',')],
    'latency_cap_ms': float,
    'device': str,
    'use_sim_time': lambda text: text.lower() == 'true',
}


def read_cameras(params_file):
    """Read the names of the cameras from a parameter file, from the section of any node."""
    sections = [yaml.safe_load(Path(params_file).read_text())]
    while sections:  # a namespace and the name of a node may be one key or nested ones
        section = sections.pop(0)
        if isinstance(section, dict):
            cameras = (section.get('ros__parameters') or {}).get('cameras')
            if cameras:
                return [cameras] if isinstance(cameras, str) else cameras
            sections += section.values()
    return ['camera']


def remappings(given, cameras):
    """Return the remappings of a single camera's topics to those of its driver."""
    names = {'image_topic': 'image_raw', 'camera_info_topic': 'camera_info'}
    if len(cameras) != 1 and any(argument in given for argument in names):
        raise ValueError('the arguments image_topic and camera_info_topic are for a single '
                         f'camera; the cameras are {", ".join(cameras)}: let their drivers '
                         'publish on <camera>/image_raw')
    return [(f'{cameras[0]}/{name}', given[argument]) for argument, name in names.items()
            if argument in given]


def create_actions(context):
    """Create the launch actions from the arguments that are not empty."""
    given = {name: text for name in ARGUMENTS
             if (text := LaunchConfiguration(name).perform(context))}
    parameters = {name: convert(given[name]) for name, convert in PARAMETERS.items()
                  if name in given}
    cameras = parameters.get('cameras') or read_cameras(given['params_file'])
    profile = str(CONFIG / 'fastdds_large_images.xml')
    actions = [SetEnvironmentVariable(variable, profile) for variable in PROFILE_VARIABLES
               if variable not in os.environ]
    actions.append(LifecycleNode(
        package='marigold_ros', executable='depth_node', name='depth_node',
        namespace=given.get('namespace', ''), output='screen', emulate_tty=True,
        parameters=[given['params_file'], parameters] if parameters else [given['params_file']],
        remappings=remappings(given, cameras)))
    if given['rviz'].lower() == 'true':
        actions.append(Node(package='rviz2', executable='rviz2',
                            arguments=['-d', str(CONFIG / 'depth.rviz')],
                            parameters=[{'use_sim_time': parameters.get('use_sim_time', False)}]))
    return actions


def generate_launch_description():
    """Declare the arguments and create the actions."""
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=description)
          for name, (default, description) in ARGUMENTS.items()),
        OpaqueFunction(function=create_actions)])
