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
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.event_handlers import OnStateTransition

SHARE = Path(get_package_share_directory('marigold_ros'))
ARGUMENTS = {
    'bag': (str(SHARE / 'sample' / 'living_room'),
            'Bag to play: ROS 2 folder, .mcap, .db3, or ROS 1 .bag'),
    'rate': ('1.0', 'Factor of the playback speed'),
    'start_offset': ('0.0', 'Time to skip at the start of the bag, s'),
    'loop': ('false', 'true: start again at the end of the bag'),
    'wait_s': ('3.0', 'Longest wait for other subscribers before the first message, s'),
}


def create_player(context):
    """Create the player, whose exit shuts the launch down."""
    value = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    loop = ['--loop'] if value['loop'].lower() == 'true' else []
    return [Node(
        package='marigold_ros', executable='play_bag', output='screen', emulate_tty=True,
        arguments=[value['bag'], '--clock', '--rate', value['rate'],
                   '--start-offset', value['start_offset'],
                   '--wait-for-subscribers', value['wait_s'], *loop],
        on_exit=Shutdown(reason='the playback of the bag has ended'))]


def generate_launch_description():
    """Declare the arguments, start the node, and start the player once the node is active."""
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=description)
          for name, (default, description) in ARGUMENTS.items()),
        RegisterEventHandler(OnStateTransition(
            goal_state='active', entities=[OpaqueFunction(function=create_player)],
            handle_once=True)),
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(SHARE / 'launch' / 'depth.launch.py')),
            launch_arguments={'use_sim_time': 'true'}.items())])
