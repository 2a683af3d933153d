"""What pydantic finds wrong in a file, said in one way everywhere."""

from __future__ import annotations

from pydantic import ValidationError


def describe_validation_errors(err: ValidationError) -> str:
    """
    Name key, rule and value of each mistake.

    Returns
    -------
    str
        For instance 'train.0.weight: Input should be greater than 0, got -1.0'.
    """
    texts = []
    for mistake in err.errors():
        text = ': '.join(filter(None, ['.'.join(map(str, mistake['loc'])),
                                       mistake['msg'].removeprefix('Value error, ')]))
        # A rule of several keys names them itself: its input is all of them.
        if not isinstance(mistake['input'], dict) and mistake['type'] != 'json_invalid':
            text += f', got {mistake["input"]!r}'
        texts.append(text)
    return '; '.join(texts)
