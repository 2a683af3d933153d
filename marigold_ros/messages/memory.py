"""Memory of messages, which is filled once and then sent as it is."""

from __future__ import annotations

from typing import Any, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

# Room before and after the data, for the other fields of an Image or a PointCloud2.
HEAD_BYTES, TAIL_BYTES = 4096, 64


class MessageMemory:
    """
    The data of one message, with room for the other serialized fields around them.

    It is kept from frame to frame: allocating memory of this size takes longer than filling it.

    Examples
    --------
    >>> memory = MessageMemory()
    >>> memory.array((1, 2), np.uint8)[:] = 65, 66  # A and B
    >>> memory.complete(b'before', b'after').tobytes()
    b'beforeABafter'
    """

    def __init__(self) -> None:
        """Allocate nothing yet."""
        self._bytes: NDArray[np.uint8] = np.empty(HEAD_BYTES + TAIL_BYTES, np.uint8)

    @property
    def data(self) -> NDArray[np.uint8]:
        """Return the data, uint8 [N]."""
        return self._bytes[HEAD_BYTES:-TAIL_BYTES]

    def array(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return the data as an array, which is not initialized; it replaces the one before."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if size != self.data.size:
            self._bytes = np.empty(HEAD_BYTES + size + TAIL_BYTES, np.uint8)
        return self.data.view(dtype).reshape(shape)

    def complete(self, head: bytes, tail: bytes = b'') -> NDArray[np.uint8]:
        """
        Write the rest of the message around the data.

        Parameters
        ----------
        head, tail : bytes
            Up to `HEAD_BYTES` and `TAIL_BYTES`; else the data are copied.

        Returns
        -------
        uint8 [n]
            The whole message; overwritten with the data.
        """
        if len(head) > HEAD_BYTES or len(tail) > TAIL_BYTES:
            return np.frombuffer(b''.join((head, self.data.data, tail)), np.uint8)
        start, end = HEAD_BYTES - len(head), HEAD_BYTES + self.data.size
        self._bytes[start:HEAD_BYTES] = np.frombuffer(head, np.uint8)
        self._bytes[end:end + len(tail)] = np.frombuffer(tail, np.uint8)
        return self._bytes[start:end + len(tail)]


def copy_to_memory(data: NDArray[np.uint8]) -> MessageMemory:
    """Return new memory with these data."""
    memory = MessageMemory()
    np.copyto(memory.array(data.shape, data.dtype), data)
    return memory
