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
import launch.logging
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.substitutions import ExecutableInPackage
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

from marigold_ros.depth.errors import ConfigError
from marigold_ros.ros.parameter_files import read_parameters
from marigold_ros.ros.tools.command_line import parse_non_negative
from marigold_ros.ros.tools.launch_arguments import (
    describe_ignored_arguments,
    parse_arguments,
    parse_boolean,
    parse_names,
)
from marigold_ros.ros.tools.share_files import select_large_image_profile

CONFIG = Path(get_package_share_directory('marigold_ros')) / 'config'
ARGUMENTS = {
    'params_file': (str(CONFIG / 'depth.yaml'), 'Parameter file'),
    'checkpoint': ('', 'Name of an embedded checkpoint, folder in Marigold layout, or Hugging '
                   'Face id'),
    'cameras': ('', 'Names of the cameras, for example [front, rear]'),
    'image_topic': ('', 'Image topic of a single camera, raw or compressed; '
                    'default: <camera>/image_raw'),
    'camera_info_topic': ('', 'camera_info topic of a single camera; '
                          'default: camera_info in the namespace of the image topic'),
    'scale_sources': ('', 'Sources of the metric scale, for example [cloud, ground_plane]: none '
                      'or fixed alone, or of depth, cloud, scan, ground_plane and motion'),
    'reference_topic': ('', 'Reference topic of a single camera, if one of the scale sources is '
                        'depth, cloud or scan; default: <camera>/scale/<source>'),
    'reference_camera_info_topic': ('', 'camera_info topic of a reference depth image; '
                                    'default: camera_info in the namespace of the reference'),
    'latency_cap_ms': ('', 'Largest time from receipt to publication, ms; 0: no cap'),
    'device': ('', 'auto, cpu, cuda, cuda:<index> or openvino:<DEVICE>'),
    'use_sim_time': ('', 'true: use the time of /clock'),
    'namespace': ('', 'Namespace of the node and of its relative topics'),
    'rviz': ('false', 'true: start rviz2, too'),
}
PARSERS = {'cameras': parse_names, 'scale_sources': parse_names,
           'latency_cap_ms': parse_non_negative, 'use_sim_time': parse_boolean,
           'rviz': parse_boolean}
# Launch argument -> the parameter that it sets.
PARAMETERS = {'checkpoint': 'checkpoint', 'cameras': 'cameras',
              'scale_sources': 'scale.sources', 'latency_cap_ms': 'latency_cap_ms',
              'device': 'device', 'use_sim_time': 'use_sim_time'}


def find_remappings(given, parameters):
    """Return the remappings of a single camera's topics to those of its drivers."""
    cameras = parameters.get('cameras', ['camera'])
    sources = parameters.get('scale.sources', ['none'])
    for name, value in (('cameras', cameras), ('scale.sources', sources)):
        if not isinstance(value, list):
            raise ConfigError(f'`{name}` must be a list, such as [one, two]; got {value!r}')
    names = {'image_topic': 'image_raw', 'camera_info_topic': 'camera_info',
             'reference_camera_info_topic': 'scale/camera_info'}
    for argument, possible in {'reference_topic': ('depth', 'cloud', 'scan'),
                               'reference_camera_info_topic': ('depth',)}.items():
        referenced = [each for each in sources if each in possible]
        if argument in given and len(referenced) != 1:
            raise ConfigError(f'launch argument `{argument}` is for one scale source that is '
                              f'{" or ".join(possible)}; scale.sources is {sources}')
        if argument == 'reference_topic' and referenced:
            names[argument] = f'scale/{referenced[0]}'
    used = [argument for argument in names if argument in given]
    if used and len(cameras) != 1:
        raise ConfigError(f'launch argument `{used[0]}` is for a single camera; `cameras` is '
                          f'{cameras}: let the drivers publish on <camera>/{names[used[0]]}')
    return [(f'{cameras[0]}/{names[argument]}', given[argument]) for argument in used]


def read_context(context, namespace):
    """Return the node's namespace, and the ROS arguments that launch gives to every node."""
    outer = context.launch_configurations
    arguments = []
    for each in outer.get('global_params', []):
        arguments += (['-p', f'{each[0]}:={each[1]}'] if isinstance(each, tuple)
                      else ['--params-file', each])
    return (make_namespace_absolute(prefix_namespace(outer.get('ros_namespace'), namespace)),
            arguments)


def create_actions(context):
    """Check everything before anything is started; then start the node."""
    if ignored := describe_ignored_arguments(__file__, context.argv, ARGUMENTS):
        launch.logging.get_logger('depth.launch.py').warning(ignored)
    given = parse_arguments(
        {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}, PARSERS)
    params_file = given.get('params_file', ARGUMENTS['params_file'][0])
    parameters = {parameter: given[argument] for argument, parameter in PARAMETERS.items()
                  if argument in given}
    namespace, arguments = read_context(context, given.get('namespace', ''))
    initial = {**read_parameters('depth_node', namespace,
                                 [*arguments, '--params-file', params_file]), **parameters}
    actions = [SetEnvironmentVariable(*variable)
               for variable in select_large_image_profile(os.environ).items()]
    actions.append(LifecycleNode(
        package='marigold_ros', executable='depth_node', name='depth_node',
        namespace=given.get('namespace', ''), output='screen', emulate_tty=True,
        parameters=[params_file, parameters] if parameters else [params_file],
        remappings=find_remappings(given, initial)))
    if given.get('rviz'):
        # Performed here, because if this fails after the node was started, the node stays alone.
        rviz2 = ExecutableInPackage('rviz2', package='rviz2').perform(context)
        actions.append(Node(executable=rviz2, arguments=['-d', str(CONFIG / 'depth.rviz')],
                            parameters=[{'use_sim_time': initial.get('use_sim_time', False)}]))
    return actions


def generate_launch_description():
    """Declare the arguments and create the actions."""
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=description)
          for name, (default, description) in ARGUMENTS.items()),
        OpaqueFunction(function=create_actions)])
