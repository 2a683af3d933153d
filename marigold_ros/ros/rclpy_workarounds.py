"""Workarounds for rclpy: what its public interface lacks, and what it leaves behind."""

from __future__ import annotations

from typing import Any

from lifecycle_msgs.srv import ChangeState
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.parameter import Parameter

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


def find_given_parameters(node: Node) -> dict[str, Any]:
    """Return the initial values that the user gave, of declared parameters and of others."""
    # To rcl an empty list has no type.
    return {name: [] if each.type_ == Parameter.Type.NOT_SET else each.value
            for name, each in node._parameter_overrides.items()}
