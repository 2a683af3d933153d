"""Workarounds for rclpy: what its public interface lacks, and what it leaves behind."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any, TYPE_CHECKING

from lifecycle_msgs.srv import ChangeState
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.parameter import Parameter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rclpy.lifecycle import LifecyclePublisher

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


class _ErrorString(ctypes.Structure):
    """rcutils_error_string_t."""

    _fields_ = [('text', ctypes.c_char * 1024)]


class _SerializedMessage(ctypes.Structure):
    """rcl_serialized_message_t; its allocator is not used for publishing."""

    _fields_ = [('buffer', ctypes.c_void_p), ('length', ctypes.c_size_t),
                ('capacity', ctypes.c_size_t), ('allocator', ctypes.c_void_p * 5)]


def publish_serialized(publisher: LifecyclePublisher, message: NDArray[np.uint8]) -> None:
    """
    Publish a serialized message from where it is, without holding Python's lock.

    rclpy copies a message once more and holds the lock until the middleware has copied it, too:
    several milliseconds for a large image, in which no service is answered.

    Parameters
    ----------
    publisher : LifecyclePublisher
        Publishes nothing while it is not active.
    message : uint8 [n]
        CDR, contiguous; no longer used when this returns.

    Raises
    ------
    RCLError
        If rcl cannot publish.
    """
    if not publisher.is_activated:
        return
    serialized = _SerializedMessage(message.ctypes.data, message.size, message.size)
    with publisher.handle:
        code = _rcl().rcl_publish_serialized_message(
            ctypes.c_void_p(publisher.handle.pointer), ctypes.byref(serialized), None)
    if code != 0:
        reason = _rcl().rcutils_get_error_string().text.decode(errors='replace')
        _rcl().rcutils_reset_error()
        raise RCLError(f'failed to publish on {publisher.topic}: {reason}')


@lru_cache(maxsize=1)
def _rcl() -> ctypes.CDLL:
    """Return the libraries that rclpy is linked to."""
    library = ctypes.CDLL(rclpy_implementation.__file__)
    library.rcutils_get_error_string.restype = _ErrorString
    return library
