"""The run folder."""

from __future__ import annotations

import pytest

from marigold_ros.training.run_folder import replace_atomically


def test_a_folder_is_replaced_completely_or_not_at_all(tmp_path):
    with replace_atomically(tmp_path / 'a') as new:
        (new / 'file').write_text('first')
    with pytest.raises(OSError, match='full'), replace_atomically(tmp_path / 'a') as new:
        (new / 'file').write_text('second')
        raise OSError('full')
    assert (tmp_path / 'a/file').read_text() == 'first'
    with replace_atomically(tmp_path / 'a') as new:
        assert not list(new.iterdir())
    assert not list((tmp_path / 'a').iterdir())
