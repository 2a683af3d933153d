"""The buffer of the newest frames."""

from __future__ import annotations

from marigold_ros.ros.frame_buffer import NewestFrames, ReceivedFrame


def test_a_frame_supersedes_only_those_of_its_camera():
    def frame(camera: str, stamp_ns: int) -> ReceivedFrame:
        return ReceivedFrame(camera, b'', False, stamp_ns, '', 0.0)

    newest = NewestFrames()
    assert newest.put(frame('front', 1)) is None
    assert newest.put(frame('rear', 2)) is None
    assert newest.put(frame('front', 3)) == frame('front', 1)
    assert sorted(each.stamp_ns for each in newest.take()) == [2, 3]
    assert newest.take() == []
