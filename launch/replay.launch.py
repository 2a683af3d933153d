"""
Play a bag into depth_node on simulated time.

    ros2 launch marigold_ros replay.launch.py bag:=path/to/bag rviz:=true

Every argument of depth.launch.py but `namespace`, which the bag's topics do not have, may be
given as well.  The bag's own clock rules: the node runs with use_sim_time, the player starts when
the node is active, and all ends with the bag.
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
    'rate': ('1.0', 'Faster above 1, slower below'),
    'start_offset': ('0.0', 'Seconds of the bag to leave out'),
    'loop': ('false', 'true begins again at the end'),
    'wait_s': ('3.0', 'Longest wait for other subscribers before the first message, s'),
}


def play(context):
    """Start the player; its end is the end of all."""
    value = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    loop = ['--loop'] if value['loop'].lower() == 'true' else []
    return [Node(
        package='marigold_ros', executable='play_bag', output='screen', emulate_tty=True,
        arguments=[value['bag'], '--clock', '--rate', value['rate'],
                   '--start-offset', value['start_offset'],
                   '--wait-for-subscribers', value['wait_s'], *loop],
        on_exit=Shutdown(reason='the bag is over'))]


def generate_launch_description():
    """Declare the arguments, and start the node and the player."""
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=description)
          for name, (default, description) in ARGUMENTS.items()),
        RegisterEventHandler(OnStateTransition(
            goal_state='active', entities=[OpaqueFunction(function=play)], handle_once=True)),
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(SHARE / 'launch' / 'depth.launch.py')),
            launch_arguments={'use_sim_time': 'true'}.items())])
