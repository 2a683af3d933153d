"""
Start depth_node, and rviz2 if asked.

    ros2 launch marigold_ros depth.launch.py image_topic:=/usb_cam/image_raw

Arguments left empty change nothing: the parameter file rules.  The node configures and activates
itself (parameter `autostart`).
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
    'checkpoint': ('', 'Embedded name, folder in Marigold layout, or hub id'),
    'cameras': ('', 'Names of the cameras, as [front, rear]'),
    'image_topic': ('', 'Image topic of the only camera, raw or compressed; '
                    'default: <camera>/image_raw'),
    'camera_info_topic': ('', 'camera_info topic of the only camera; '
                          'default: beside the image topic'),
    'latency_cap_ms': ('', 'Longest time from receipt to publication, ms; 0: no cap'),
    'device': ('', 'auto, cpu, cuda or cuda:<index>'),
    'use_sim_time': ('', 'true takes the time from /clock'),
    'namespace': ('', 'Namespace of the node and of its relative topics'),
    'rviz': ('false', 'true starts rviz2 as well'),
}
# Launch argument -> how its text becomes the parameter of the same name.
PARAMETERS = {
    'checkpoint': str,
    'cameras': lambda text: [name.strip() for name in text.strip('[] ').split(',')],
    'latency_cap_ms': float,
    'device': str,
    'use_sim_time': lambda text: text.lower() == 'true',
}


def cameras_of(params_file):
    """Read the cameras from a parameter file, whatever node it names."""
    for section in (yaml.safe_load(Path(params_file).read_text()) or {}).values():
        cameras = (section or {}).get('ros__parameters', {}).get('cameras')
        if cameras:
            return cameras
    return ['camera']


def remappings(given, cameras):
    """Lead the only camera's topics to where its driver publishes."""
    names = {'image_topic': 'image_raw', 'camera_info_topic': 'camera_info'}
    if len(cameras) != 1 and any(argument in given for argument in names):
        raise ValueError('image_topic and camera_info_topic serve a single camera; for several, '
                         f'remap <camera>/image_raw of {", ".join(cameras)} in your driver')
    return [(f'{cameras[0]}/{name}', given[argument]) for argument, name in names.items()
            if argument in given]


def start(context):
    """Turn the arguments that were given into processes."""
    given = {name: text for name in ARGUMENTS
             if (text := LaunchConfiguration(name).perform(context))}
    parameters = {name: read(given[name]) for name, read in PARAMETERS.items() if name in given}
    cameras = parameters.get('cameras') or cameras_of(given['params_file'])
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
    """Declare the arguments and start."""
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=description)
          for name, (default, description) in ARGUMENTS.items()),
        OpaqueFunction(function=start)])
