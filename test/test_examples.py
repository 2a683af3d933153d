"""The examples in the docstrings run and print what they say."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted('.'.join(path.relative_to(ROOT).with_suffix('').parts)
                  for path in (ROOT / 'marigold_ros').rglob('*.py') if '>>> ' in path.read_text())


@pytest.mark.parametrize('name', EXAMPLES)
def test_examples_of_a_module(name):
    failed, tried = doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS)
    assert tried > 0
    assert failed == 0
