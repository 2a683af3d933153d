"""Find and open the files of a bag, whatever their format and their names."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path, PurePath
import re
from tempfile import TemporaryDirectory

from mcap.writer import MCAP0_MAGIC
import yaml
import zstandard

from marigold_ros.data.bags.bag_file import BagFile
from marigold_ros.data.bags.mcap_file import McapFile
from marigold_ros.data.bags.message_format import ZSTD_MAGIC
from marigold_ros.data.bags.ros1_file import Ros1File
from marigold_ros.data.bags.sqlite_file import SqliteFile
from marigold_ros.depth.errors import BagError

METADATA = 'metadata.yaml'
# rosbag2 can compress whole files.
FILE_NAME = re.compile(r'\.(mcap|db3|bag)(?=(\.zstd?)?$)')
SQLITE_MAGIC, ROS1_MAGIC = b'SQLite format 3\0', b'#ROSBAG V'


def open_files(path: Path, stack: ExitStack, *,
               recover: bool) -> tuple[list[BagFile], str | None]:
    """
    Open the files of a bag.

    Parameters
    ----------
    path : Path
        A file or folder that exists.
    stack : ExitStack
        Closes the files.
    recover : bool
        See `open_bag`.

    Returns
    -------
    files : list of BagFile
    data_loss : str or None
        Description of what is missing; always None if `recover` is False.

    Raises
    ------
    BagError
        If the bag is unreadable, or without `recover` incomplete.
    """
    paths, lost = _find_paths(path) if path.is_dir() else ([path], 0)
    losses = [f'{path} lacks {lost} of the files that its {METADATA} names'] if lost else []
    if losses and not recover:
        raise BagError(f'cannot open bag {path}: {losses[0]}')
    files: list[BagFile] = []
    for each in paths:
        try:
            files.append(_open_file(each, stack, recover=recover))
        except BagError as err:
            # One unreadable file of several, such as the last one after a power cut, is a loss.
            if not recover or len(paths) == 1:
                raise
            losses.append(str(err))
    if not files:
        raise BagError(losses[0])
    losses += [each.data_loss for each in files if each.data_loss is not None]
    return files, '; '.join(losses) or None


def _find_paths(folder: Path) -> tuple[list[Path], int]:
    """
    Return the bag files of a folder, and how many more the metadata names.

    Files that were renamed count as those that the metadata names.
    """
    found = sorted(each for each in folder.iterdir()
                   if each.is_file() and FILE_NAME.search(each.name))
    named = _named_files(folder / METADATA)
    if named and named <= {each.name for each in found}:
        return [each for each in found if each.name in named], 0
    if not found:
        raise BagError(f'cannot open bag {folder}: unreadable or truncated (it holds no .mcap, '
                       '.db3 or .bag file)')
    suffixes = sorted({match[1] for each in found if (match := FILE_NAME.search(each.name))})
    if len(suffixes) > 1:
        raise BagError(f'cannot open bag {folder}: it holds files of several formats '
                       f'({", ".join(suffixes)}); choose one file')
    return found, max(0, len(named) - len(found))


def _named_files(metadata: Path) -> set[str]:
    """Read which files belong to a bag; none if there is no valid metadata to say it."""
    try:
        information = yaml.safe_load(metadata.read_text())['rosbag2_bagfile_information']
        return {PurePath(name).name for name in information['relative_file_paths']}
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return set()


def _open_file(path: Path, stack: ExitStack, *, recover: bool) -> BagFile:
    try:
        with path.open('rb') as file:
            magic = file.read(16)
        if magic.startswith(ZSTD_MAGIC):
            return _open_file(_decompress(path, stack), stack, recover=recover)
        if magic.startswith(MCAP0_MAGIC):
            return McapFile(path, recover=recover)
        if magic.startswith(SQLITE_MAGIC):
            return SqliteFile(path)
        if magic.startswith(ROS1_MAGIC):
            return stack.enter_context(Ros1File(path))
    except BagError:
        raise
    except Exception as err:  # damaged bytes make the parsers fail in many ways
        raise BagError(f'cannot open bag {path}: unreadable or truncated '
                       f'({str(err) or type(err).__name__})') from err
    raise BagError(f'cannot open bag {path}: unreadable or truncated (it does not begin as an '
                   'MCAP, sqlite3 or ROS 1 bag file does)')


def _decompress(path: Path, stack: ExitStack) -> Path:
    """Decompress a file that rosbag2 compressed as a whole."""
    folder = stack.enter_context(TemporaryDirectory(prefix='marigold_ros-'))
    whole = Path(folder, path.name.removesuffix(path.suffix))
    with path.open('rb') as source, whole.open('wb') as target:
        zstandard.ZstdDecompressor().copy_stream(source, target)
    return whole
