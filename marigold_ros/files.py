"""Write files that a crash or another process cannot leave or find half-written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def write_atomically(path: Path, content: bytes | NDArray[Any]) -> None:
    """
    Write a file that is there completely or not at all.

    Parameters
    ----------
    path : Path
        Is replaced if it exists.
    content : bytes or array
        An array is written in NumPy's format.
    """
    temporary = path.with_name(f'{path.name}.{os.getpid()}.part')
    with temporary.open('wb') as file:
        if isinstance(content, bytes):
            file.write(content)
        else:
            np.save(file, content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
