"""Read the header of a serialized message, and tell whether stamps carry time."""

from __future__ import annotations

from collections.abc import Sequence
import struct

from marigold_ros.depth.errors import MessageError

NS_PER_S = 1_000_000_000
# Successive stamps that are examined: enough to tell those in whole seconds, at 5 Hz or more,
# from those that carry time.
EXAMINED_STAMPS = 10


def carry_time(stamps_ns: Sequence[int]) -> bool:
    """
    Tell whether the stamps of successive messages carry time.

    They do not if all are 0 or half of them repeat others, as where a driver does not set them,
    sets them once, or to whole seconds.

    Examples
    --------
    >>> [carry_time(stamps) for stamps in ([7], [0, 0, 3], [7, 7], [7, 8, 9, 9], [])]
    [True, True, False, True, False]
    """
    return any(stamps_ns) and (len(stamps_ns) == 1 or 2 * len(set(stamps_ns)) > len(stamps_ns))


def peek_header(message: bytes) -> tuple[int, str, int]:
    """
    Read the header of a serialized message without deserializing the rest.

    Parameters
    ----------
    message : bytes
        CDR of any message whose first field is a std_msgs/Header: 4 bytes of encapsulation, then
        the fields.  The lowest bit of the second byte is set for little-endian.

    Returns
    -------
    stamp_ns : int
    frame_id : str
    end : int
        Offset of the end of the header, bytes.

    Raises
    ------
    MessageError
        If the message is too short for its header, or its stamp is invalid.
    """
    try:
        order = '<' if message[1] & 1 else '>'
        sec, nanosec, length = struct.unpack_from(order + 'iII', message, 4)
        end = 16 + length
        if end > len(message):
            raise IndexError
    except (IndexError, struct.error) as err:
        raise MessageError(f'message must contain a header; got {len(message)} bytes') from err
    if nanosec >= NS_PER_S:
        raise MessageError(f'`nanosec` of the stamp must be below {NS_PER_S}; got {nanosec}')
    frame_id = message[16:end].rstrip(b'\0').decode(errors='replace')
    return sec * NS_PER_S + nanosec, frame_id, end
