"""Workarounds for rclpy: invalid lifecycle transitions and references to destroyed entities."""

from __future__ import annotations

from lifecycle_msgs.srv import ChangeState
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode

RCLError = rclpy_implementation.RCLError


def reject_invalid_transitions(node: LifecycleNode) -> None:
    """
    Make ~/change_state reject a transition that the current state does not allow.

    In rclpy 7 such a request raises an exception out of the service callback and the executor.
    """
    change_state = node._service_change_state.callback

    def handle_request(request: ChangeState.Request,
                       response: ChangeState.Response) -> ChangeState.Response:
        try:
            return change_state(request, response)
        except RCLError as err:
            node.get_logger().warning(f'lifecycle transition rejected: {err}')
            response.success = False
            return response

    node._service_change_state.callback = handle_request


def discard_destroyed_entities(node: LifecycleNode) -> None:
    """Discard the references that rclpy keeps to destroyed publishers and subscriptions."""
    group = node.default_callback_group
    group.entities = {each for each in group.entities if each() is not None}
