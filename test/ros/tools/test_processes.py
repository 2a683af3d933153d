"""Child processes: their logs, their termination and their ROS domain."""

from __future__ import annotations

import os
import signal
import sys

from node_harness import find_free_domain
import pytest
import rclpy

from marigold_ros.depth.errors import ConfigError
from marigold_ros.ros.tools import processes
from marigold_ros.ros.tools.processes import find_package_command, LoggedProcess, ProcessError


def test_the_error_of_an_ended_process_has_the_end_of_its_log(tmp_path):
    command = find_package_command('record_bag', 'marigold_ros.ros.tools.record_bag')
    process = LoggedProcess('record_bag', [*command, str(tmp_path), '--all'], tmp_path,
                            os.environ)
    assert process.wait(60) == 1
    with pytest.raises(ProcessError, match=r'record_bag ended with exit code 1; .*record_bag.log:'
                                           r'\n.*already exists'):
        process.require_running()


def test_a_process_that_ignores_signals_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr('marigold_ros.ros.tools.processes.STOP_TIMEOUT_S', 0.5)
    process = LoggedProcess('stubborn', [
        sys.executable, '-m', 'timeit', '-n', '1', '-s', 'import signal, time',
        f'signal.signal({int(signal.SIGINT)}, signal.SIG_IGN); print("stubborn"); time.sleep(60)'],
        tmp_path, {'PYTHONUNBUFFERED': '1'})
    process.wait_for_log('stubborn')
    assert process.stop() == -signal.SIGKILL
    with pytest.raises(ProcessError, match='exit code -9 instead of 0'):
        process.require_success()


def test_the_error_of_a_missing_log_line_has_the_log(tmp_path):
    process = LoggedProcess('brief', [sys.executable, '-c', 'print("that is all")'], tmp_path,
                            os.environ)
    assert process.wait_for_log('that is') == 'that is all\n'
    with pytest.raises(ProcessError, match="brief did not log 'more'; .*\n  | that is all"):
        process.wait_for_log('more')


@pytest.mark.node
@pytest.mark.parametrize('discovery', ['LOCALHOST', 'SUBNET'])
def test_a_domain_in_use_is_not_chosen(monkeypatch, discovery):
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', discovery)
    taken = find_free_domain()
    context = rclpy.Context()
    rclpy.init(args=[], context=context, domain_id=taken)
    monkeypatch.setattr(processes, 'DOMAINS', [taken])
    node = rclpy.create_node('participant', context=context)
    try:
        assert processes.is_domain_in_use(taken)
        with pytest.raises(ConfigError, match=f'the ROS domains {taken} to {taken} are all in'):
            processes.find_free_domain()
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)
