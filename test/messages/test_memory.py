"""Memory of messages."""

from __future__ import annotations

import numpy as np

from marigold_ros.messages.memory import copy_to_memory, HEAD_BYTES, MessageMemory, TAIL_BYTES


def test_memory_is_kept_until_the_size_changes():
    memory = MessageMemory()
    first = memory.array((2, 3), np.float32)
    assert np.shares_memory(memory.array((3, 2, 4), np.uint8), first)
    assert not np.shares_memory(memory.array((2, 4), np.float32), first)
    assert memory.data.size == 32


def test_a_message_is_completed_around_its_data():
    memory = copy_to_memory(np.arange(5, dtype=np.uint8))
    for head, tail in ((b'', b''), (b'head', b''), (b'longer', b'x'), (b'h', b'tail'),
                       (bytes(HEAD_BYTES), bytes(TAIL_BYTES)), (bytes(HEAD_BYTES + 1), b'y'),
                       (b'z', bytes(TAIL_BYTES + 1))):
        assert memory.complete(head, tail).tobytes() == head + bytes(range(5)) + tail
