"""Name what was given but does not exist, with what may have been meant."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches


def describe_unknown(name: str, known: Collection[str]) -> str:
    """
    Quote an unknown name, with the most similar known one if there is any.

    Examples
    --------
    >>> describe_unknown('latency_cap', ['latency_cap_ms', 'max_carry_s'])
    '`latency_cap` (did you mean `latency_cap_ms`?)'
    >>> describe_unknown('speed', ['latency_cap_ms', 'max_carry_s'])
    '`speed`'
    """
    similar = get_close_matches(name, known, 1)
    return f'`{name}`' + ''.join(f' (did you mean `{each}`?)' for each in similar)
