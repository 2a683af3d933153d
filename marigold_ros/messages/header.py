"""Read the header of a serialized message."""

from __future__ import annotations

import struct

from marigold_ros.depth.errors import MessageError

NS_PER_S = 1_000_000_000


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
