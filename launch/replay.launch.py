"""
Play a bag into depth_node in simulated time.

    ros2 launch marigold_ros replay.launch.py bag:=path/to/bag rviz:=true

The arguments of depth.launch.py are valid, too, except `namespace`, because the bag's topics have
none.  The node runs with use_sim_time on the clock of the bag.  The player starts when the node is
active; when it has finished, the launch shuts down.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
import launch.logging
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import StateTransition

from marigold_ros.ros.tools.command_line import parse_non_negative, parse_positive
from marigold_ros.ros.tools.launch_arguments import (
    describe_ignored_arguments,
    parse_arguments,
    parse_boolean,
    parse_existing_path,
)

SHARE = Path(get_package_share_directory('marigold_ros'))
DEPTH = PythonLaunchDescriptionSource(str(SHARE / 'launch' / 'depth.launch.py'))
ARGUMENTS = {
    'bag': (str(SHARE / 'sample' / 'living_room'),
            'Bag to play: ROS 2 folder, .mcap, .db3, or ROS 1 .bag'),
    'rate': ('1.0', 'Factor of the playback speed'),
    'start_offset': ('0.0', 'Time to skip at the start of the bag, s'),
    'loop': ('false', 'true: start again at the end of the bag'),
    'wait_s': ('3.0', 'Longest wait for other subscribers before the first message, s'),
}
PARSERS = {'bag': parse_existing_path, 'rate': parse_positive, 'start_offset': parse_non_negative,
           'loop': parse_boolean, 'wait_s': parse_non_negative}


def shut_down(event, context):
    """Shut the launch down, unless a Ctrl-C does already: launch_ros fails on a second time."""
    return [] if context.is_shutdown else [Shutdown(reason='the playback of the bag has ended')]


def is_active(event):
    """Check whether the event says that depth_node has become active."""
    return (isinstance(event, StateTransition) and event.goal_state == 'active'
            and event.action.node_name.endswith('/depth_node'))


def create_player(context):
    """Check the arguments; then start the player once the node is active."""
    depth_arguments = DEPTH.get_launch_description(context).get_launch_arguments()
    if ignored := describe_ignored_arguments(
            __file__, context.argv, [*ARGUMENTS, *(each.name for each in depth_arguments)]):
        launch.logging.get_logger('replay.launch.py').warning(ignored)
    given = parse_arguments({name: LaunchConfiguration(name).perform(context) or default
                             for name, (default, _) in ARGUMENTS.items()}, PARSERS)
    # Created here, because a group that includes this file ends before the node is active, and
    # its arguments with it.
    player = Node(
        package='marigold_ros', executable='play_bag', output='screen', emulate_tty=True,
        arguments=[given['bag'], '--clock', '--rate', str(given['rate']),
                   '--start-offset', str(given['start_offset']),
                   '--wait-for-subscribers', str(given['wait_s']),
                   *(['--loop'] if given['loop'] else [])],
        on_exit=shut_down)
    return [RegisterEventHandler(OnStateTransition(
        matcher=is_active, entities=[player], handle_once=True))]


def generate_launch_description():
    """Declare the arguments, check them, and start the node."""
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=description)
          for name, (default, description) in ARGUMENTS.items()),
        OpaqueFunction(function=create_player),
        IncludeLaunchDescription(DEPTH, launch_arguments={'use_sim_time': 'true'}.items())])
