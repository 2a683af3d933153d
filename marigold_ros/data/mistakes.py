"""What pydantic finds wrong in a file, said in one way everywhere."""

from __future__ import annotations

from pydantic import ValidationError


def describe_mistakes(err: ValidationError) -> str:
    """
    Name key, rule and value of each mistake.

    Returns
    -------
    str
        For instance 'train.0.weight: Input should be greater than 0, got -1.0'.
    """
    return '; '.join(
        f'{".".join(map(str, mistake["loc"])) or "it"}: '
        + mistake['msg'].removeprefix('Value error, ')
        # A rule of several keys names them itself: its input is all of them.
        + ('' if isinstance(mistake['input'], dict) or mistake['type'] == 'json_invalid'
           else f', got {mistake["input"]!r}')
        for mistake in err.errors())
