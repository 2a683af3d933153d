"""Installed message types and share files."""

from __future__ import annotations

import pytest
from std_msgs.msg import String

from marigold_ros.depth.errors import BagError, ConfigError
from marigold_ros.ros.tools.message_types import find_message_class, read_installed_typestore
from marigold_ros.ros.tools.share_files import find_share_file, require_share_file

# Type hash of std_msgs/msg/String in ROS 2 Jazzy.
STRING_HASH = 'RIHS01_df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18'


def test_installed_classes_are_found():
    assert find_message_class('std_msgs/msg/String') is String


@pytest.mark.parametrize('msgtype', [
    'absent_msgs/msg/Note', 'std_msgs/msg/Nothing', 'std_srvs/srv/Trigger'])
def test_a_type_that_is_not_an_installed_message_has_no_class(msgtype):
    assert find_message_class(msgtype) is None


def test_definitions_match_the_type_hash_of_the_middleware():
    assert read_installed_typestore('std_msgs/msg/String').hash_rihs01(
        'std_msgs/msg/String') == STRING_HASH


def test_definitions_include_nested_types():
    store = read_installed_typestore('sensor_msgs/msg/PointCloud2')
    assert {'sensor_msgs/msg/PointField', 'std_msgs/msg/Header'} <= set(store.fielddefs)


def test_a_missing_definition_is_an_error():
    with pytest.raises(BagError, match='absent_msgs .* has no definition Note.msg'):
        read_installed_typestore('absent_msgs/msg/Note')


def test_share_files_are_found_without_a_sourced_workspace():
    assert find_share_file('std_msgs', 'msg/String.msg').name == 'String.msg'
    assert find_share_file('std_msgs', 'msg/Nothing.msg') is None
    assert find_share_file('no_such_package', 'package.xml') is None
    assert require_share_file('config/demo.yaml').is_file()
    with pytest.raises(ConfigError, match='config/nothing.yaml is missing'):
        require_share_file('config/nothing.yaml')
