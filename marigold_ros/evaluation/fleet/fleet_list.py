"""
Read the list of a fleet: its recordings, their tags and the options of `evaluate`.

A list is YAML::

    chunk_s: 120
    defaults: {checkpoint: tiny, latency_table: office.json}
    recordings:
      - {name: monday, bag: bags/monday, image: /camera/image_raw, depth: /depth/image_rect,
         tags: {site: hall 3, weather: sun}}
      - {name: nyu, nyu: nyu.tar, file_list: filename_list_test.txt, policies: [fixed-1]}
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from functools import partial
import math
from pathlib import Path
import re
import shlex
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)
import yaml

from marigold_ros.data.bags.bag_frames import count_parts
from marigold_ros.data.datasets.data_set import DataSet
from marigold_ros.data.validation_errors import describe_validation_errors
from marigold_ros.depth.checkpoint import find_checkpoint, INDEX
from marigold_ros.depth.config import EngineConfig, require
from marigold_ros.depth.device import resolve_device
from marigold_ros.depth.errors import CheckpointError, ConfigError, MarigoldError
from marigold_ros.evaluation.evaluate import MODULE, open_baselines
from marigold_ros.evaluation.options import (
    add_data_sets,
    open_references,
    read_config,
    read_data_set,
)
from marigold_ros.evaluation.policies.latency import LatencyTable
from marigold_ros.progress import progress_bar

# Of `evaluate`, but the fleet decides about them, or they need the real time of one machine.
NOT_IN_A_LIST = ('data_set', 'path', 'out', 'live', 'out_bag', 'help')

Checked = TypeVar('Checked')


class _Entry(BaseModel):
    """A recording; further keys are a kind of data set and options of `evaluate`."""

    model_config = ConfigDict(extra='allow')

    name: Annotated[str, Field(pattern='^[A-Za-z0-9_-]+$')]
    tags: dict[str, str | int | float | bool | date] = {}


class _List(BaseModel):
    """The whole list."""

    model_config = ConfigDict(extra='forbid', strict=True)

    chunk_s: PositiveFloat = 120.0
    lead_in_s: NonNegativeFloat = 10.0
    chunk_frames: PositiveInt = 200
    defaults: dict[str, Any] = {}
    recordings: Annotated[list[Any], Field(min_length=1)]


@dataclass(frozen=True)
class ListedRecording:
    """
    A recording of a list.

    Attributes
    ----------
    name : str
        Unique, and the name of its folder.
    tags : dict of str to str
    options : argparse.Namespace
        As of the command line of `evaluate`.
    arguments : tuple of str
        That command line, without `--out`.
    frames : int
        Upper limit, for the progress.
    parts : int
        Equal parts that are evaluated apart.
    lead_in_s : float
        See `data.frames.Part`.
    """

    name: str
    tags: dict[str, str]
    options: argparse.Namespace
    arguments: tuple[str, ...]
    frames: int
    parts: int
    lead_in_s: float

    @property
    def folder(self) -> Path:
        """Return the output folder."""
        return Path(self.options.out)

    @property
    def command(self) -> str:
        """Return the command that evaluates it alone."""
        return shlex.join(['python', '-m', MODULE, *self.arguments, '--out', self.name])


class _Parser(argparse.ArgumentParser):
    """Raise errors instead of exiting; options cannot be abbreviated."""

    def __init__(self, kind: str, help: str) -> None:  # noqa: A002, as add_parser has it
        super().__init__(prog=kind, description=help, add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # without types
    """Reject keys that are given twice, of which YAML would keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        counts = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if twice := [key for key, count in counts.items() if count > 1]:
            raise yaml.MarkedYAMLError(problem=f'given twice: {", ".join(twice)}',
                                       problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def read_fleet_list(path: Path, out: Path, *, on_cluster: bool = False) -> list[ListedRecording]:
    """
    Read a list and validate everything that it names.

    Parameters
    ----------
    path : Path
        Other paths are relative to its folder.
    out : Path
        Output folder of the fleet.
    on_cluster : bool
        Whether it is evaluated by other machines, whose devices are not known here.

    Raises
    ------
    ConfigError
        If the list, an option, a file or a topic is invalid; the text names all problems.
    """
    try:
        raw = yaml.load(path.read_text(encoding='utf-8'), _Loader)
    except (OSError, ValueError, yaml.YAMLError) as err:
        raise ConfigError(f'the list must be a readable YAML file; got {path}: {err}') from err
    if not isinstance(raw, dict):
        raise ConfigError(f'{path} must map keys to values; got {type(raw).__name__}')
    problems: list[str] = []
    settings = _collect(problems, '', lambda: _List.model_validate(raw))
    if settings is None:  # the recordings are checked nevertheless
        settings = _collect([], '', lambda: _List.model_validate(
            {key: raw[key] for key in ('defaults', 'recordings') if key in raw}))
    recordings = []
    if settings is not None:
        problems += _unknown_keys('defaults', settings.defaults, add_data_sets(_Parser).values())
        recordings = [_read_recording(entry, f'recordings[{number}]', settings, path.parent, out,
                                      problems)
                      for number, entry in enumerate(progress_bar(
                          settings.recordings, 'checking', leave=False))]
        for number, each in enumerate(recordings):
            if each is not None:
                _collect(problems, f'recordings[{number}] ({each.name})',
                         partial(_check_device, each.options.device, on_cluster=on_cluster))
        counts = Counter(str(entry.get('name')) for entry in settings.recordings
                         if isinstance(entry, dict) and 'name' in entry)
        problems += [f'`name` must be unique; {count} recordings are named {name!r}'
                     for name, count in counts.items() if count > 1]
    if problems:
        raise ConfigError('\n  - '.join([f'{path}: nothing was evaluated, as the list has '
                                         f'{len(problems)} problem(s):', *problems]))
    return [each for each in recordings if each is not None]


def _collect(problems: list[str], where: str, check: Callable[[], Checked]) -> Checked | None:
    """Return the result of a check, or None after adding what it raises to the problems."""
    try:
        return check()
    except ValidationError as err:
        text = describe_validation_errors(err)
    except MarigoldError as err:
        text = str(err)
    text = f'{where}: {text}' if where else text
    if text not in problems:  # a file that is missing is missed more than once
        problems.append(text)
    return None


def _read_recording(raw: Any, where: str, settings: _List, folder: Path, out: Path,
                    problems: list[str]) -> ListedRecording | None:
    """Validate an entry of the list; return None, and add to the problems, if it is invalid."""
    if not isinstance(raw, dict):
        problems.append(f'{where} must map keys to values; got {raw!r}')
        return None
    entry = _collect(problems, where, lambda: _Entry.model_validate(raw))
    if entry is None:
        entry = _Entry.model_construct(None, **{**raw, 'name': 'unnamed', 'tags': {}})
    else:
        where = f'{where} ({entry.name})'
    parsers = add_data_sets(_Parser)
    given = entry.model_extra or {}
    kinds = [key for key in given if key in parsers]
    if len(kinds) != 1:
        problems.append(f'{where}: exactly one of {", ".join(parsers)} must name the data; '
                        f'got {kinds}')
        problems += _unknown_keys(where, given.keys() - kinds, parsers.values())
        return None
    kind = kinds[0]
    source = (folder / str(given.pop(kind))).absolute()
    parser = parsers[kind]
    known = _options(parser)
    given = {key: value for key, value in settings.defaults.items() if key in known} | given
    options, arguments = _parse_options(parser, given, source, folder, where, problems)
    if options is None:
        if not source.exists():
            problems.append(f'{where}: {kind} {source} does not exist')
        return None
    options.out = out / entry.name
    data_set = _check_inputs(options, where, problems)
    if data_set is None:
        return None
    tags = {key: str(value) for key, value in entry.tags.items()}
    frames = [each for each in (data_set.count, options.max_frames) if each is not None]
    return ListedRecording(entry.name, tags, options, (kind, str(source), *arguments),
                           min(frames, default=0), _count_parts(options, data_set, settings),
                           settings.lead_in_s)


def _options(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Return the options that a list may hold, by key."""
    return {action.dest: action for action in parser._actions
            if action.option_strings and action.dest not in NOT_IN_A_LIST}


def _unknown_keys(where: str, keys: Iterable[str],
                  parsers: Iterable[argparse.ArgumentParser]) -> list[str]:
    known = {key for parser in parsers for key in _options(parser)}
    return [f'{where}: unknown key `{key}`' for key in keys if key not in known]


def _parse_options(parser: argparse.ArgumentParser, given: Mapping[str, Any], source: Path,
                   folder: Path, where: str, problems: list[str]
                   ) -> tuple[argparse.Namespace | None, list[str]]:
    """Parse options as `evaluate` does; every wrong one becomes a problem."""
    problems += _unknown_keys(where, given, [parser])
    known = _options(parser)
    arguments = {key: _option_arguments(known[key], value, folder)
                 for key, value in given.items() if key in known}
    while True:
        words = [word for words in arguments.values() for word in words]
        try:
            options = parser.parse_args([str(source), '--out=', *words])
            break
        except ConfigError as err:
            problems.append(f'{where}: {err}')
            wrong = re.match(r'argument --([\w-]+)', str(err))
            if wrong is None:
                return None, []
            del arguments[wrong[1].replace('-', '_')]  # to find the next
    # A default in the working directory, which must not matter where it is not used.
    needs_costmap = vars(options).get('scene') or vars(options).get('reference')
    if needs_costmap and options.costmap.is_file():
        options.costmap = options.costmap.absolute()
    return options, words


def _option_arguments(action: argparse.Action, value: Any, folder: Path) -> list[str]:
    """Return an option as words of a command line; files are made absolute."""
    option = action.option_strings[0]
    if action.nargs == 0:
        return [option] if value else []
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, dict):
        return [f'{option}={source}={text}' for source, text in value.items()]
    if isinstance(value, list):
        value = ','.join(map(str, value))
    if action.type is Path or (action.dest == 'checkpoint' and (folder / str(value)).is_dir()):
        value = (folder / str(value)).absolute()
    return [f'{option}={value}']


def _check_inputs(options: argparse.Namespace, where: str, problems: list[str]) -> DataSet | None:
    """Open all that a recording names; every error becomes a problem."""
    data_set = _collect(problems, where, lambda: read_data_set(options))
    # The settings can be checked without the data.
    some = data_set or DataSet('', '', False, lambda: iter(()), is_sequence=True)
    _collect(problems, where, lambda: read_config(options, some))
    _collect(problems, where, lambda: _check_checkpoint(options.checkpoint))
    _collect(problems, where, lambda: open_baselines(options.baseline))
    if options.latency_table is not None:
        _collect(problems, where, lambda: LatencyTable.load(options.latency_table))
    with ExitStack() as stack:
        _collect(problems, where, lambda: open_references(options, stack))
    return data_set


def _check_checkpoint(checkpoint: str) -> None:
    folder = find_checkpoint(checkpoint)
    if not (folder / INDEX).is_file():
        raise CheckpointError(f'`checkpoint` must hold the file {INDEX}; {folder} does not')


def _check_device(device: str, *, on_cluster: bool) -> None:
    EngineConfig(device=device)
    if on_cluster:
        require(not device.startswith('cuda:'), 'device', 'cuda without a number with `ray`, '
                'which gives each task a GPU', device)
    elif device.startswith('cuda'):
        resolve_device(device)


def _count_parts(options: argparse.Namespace, data_set: DataSet, settings: _List) -> int:
    if options.max_frames is not None:
        return 1
    if options.data_set == 'bag':
        return count_parts(options.path, settings.chunk_s)
    return math.ceil((data_set.count or 1) / settings.chunk_frames)
