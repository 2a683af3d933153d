"""The folder that a training leaves behind."""

from __future__ import annotations

import pytest

from marigold_ros.training.run_folder import replacing


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    with replacing(tmp_path / 'a') as new:
        (new / 'file').write_text('first')
    with pytest.raises(OSError, match='full'), replacing(tmp_path / 'a') as new:
        (new / 'file').write_text('second')
        raise OSError('full')
    assert (tmp_path / 'a/file').read_text() == 'first'
    with replacing(tmp_path / 'a') as new:
        assert not list(new.iterdir())
    assert not list((tmp_path / 'a').iterdir())
