"""What rclpy leaves undone: refusing wrong transitions, forgetting what was destroyed."""

from __future__ import annotations

from lifecycle_msgs.srv import ChangeState
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode

RCLError = rclpy_implementation.RCLError


def refuse_wrong_transitions(node: LifecycleNode) -> None:
    """
    Make ~/change_state refuse a transition that the state does not allow.

    rclpy 7 raises out of the service callback, and so out of the executor, when asked to
    activate an active node.
    """
    change_state = node._service_change_state.callback

    def answer(request: ChangeState.Request,
               response: ChangeState.Response) -> ChangeState.Response:
        try:
            return change_state(request, response)
        except RCLError as err:
            node.get_logger().warning(f'transition refused: {err}')
            response.success = False
            return response

    node._service_change_state.callback = answer


def forget_destroyed_entities(node: LifecycleNode) -> None:
    """Drop the dead references that rclpy keeps to every publisher and subscription ever made."""
    group = node.default_callback_group
    group.entities = {each for each in group.entities if each() is not None}
