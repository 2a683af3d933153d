"""Format the validation errors of pydantic."""

from __future__ import annotations

from pydantic import ValidationError


def describe_validation_errors(err: ValidationError) -> str:
    """
    Format each error as key, violated rule and value.

    Returns
    -------
    str
        For instance 'train.0.weight: Input should be greater than 0, got -1.0'.
    """
    texts = []
    for error in err.errors():
        text = ': '.join(filter(None, ['.'.join(map(str, error['loc'])),
                                       error['msg'].removeprefix('Value error, ')]))
        # A rule about several keys names them in its message; its input is the whole dict.
        if not isinstance(error['input'], dict) and error['type'] != 'json_invalid':
            text += f', got {error["input"]!r}'
        texts.append(text)
    return '; '.join(texts)
