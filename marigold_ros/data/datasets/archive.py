"""Files of a folder, or of a tar file as if it were unpacked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
import tarfile

from marigold_ros.depth.errors import InputError


class Archive:
    """
    Read-only view of a folder or a tar file; made by `open_archive`.

    Attributes
    ----------
    path : Path
    """

    def __init__(self, path: Path, tar: tarfile.TarFile | None) -> None:
        self.path = path
        self._tar = tar

    def read(self, name: str) -> bytes:
        """
        Read a file.

        Parameters
        ----------
        name : str
            Its path below the folder, or in the tar file with or without `./` before it.

        Raises
        ------
        InputError
            If there is none, or it cannot be read.
        """
        try:
            if self._tar is None:
                return (self.path / name).read_bytes()
            file = self._tar.extractfile(_member(self._tar, name))
        except (OSError, KeyError, tarfile.TarError) as err:
            raise InputError(f'{self.path} must hold the file {name}; {err}') from err
        if file is None:
            raise InputError(f'{name} of {self.path} must be a file; it is none')
        return file.read()


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """
    Open a folder or a tar file.

    Raises
    ------
    InputError
        If the path is neither.
    """
    if path.is_dir():
        yield Archive(path, None)
        return
    try:
        tar = tarfile.open(path)  # noqa: SIM115, whose errors have another meaning below
    except (OSError, tarfile.TarError) as err:
        raise InputError(f'{path} must be a folder or a tar file; {err}') from err
    with tar:
        yield Archive(path, tar)


def _member(tar: tarfile.TarFile, name: str) -> tarfile.TarInfo:
    try:
        return tar.getmember(f'./{name}')
    except KeyError:
        return tar.getmember(name)
