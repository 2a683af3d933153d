"""Child processes that log to files and are ended in good order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
import shlex
import signal
import subprocess
import sys

from marigold_ros.depth.errors import MarigoldError

STOP_S = 15.0
TAIL_LINES = 20


class ProcessError(MarigoldError):
    """A child process ended when or how it should not have."""


def package_command(name: str, module: str) -> list[str]:
    """Find one of this package's commands, or run its module where there is no bin folder."""
    command = Path(sys.executable).with_name(name)
    return [str(command)] if command.exists() else [sys.executable, '-m', module]


class LoggedProcess:
    """
    A command that runs with its output in a file.

    Parameters
    ----------
    name : str
        Also the log's.
    command : sequence of str
    log_folder : Path
    environment : mapping
    """

    def __init__(self, name: str, command: Sequence[str], log_folder: Path,
                 environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = log_folder / f'{name}.log'
        self.command_line = shlex.join(command)
        with self.log.open('w') as log:
            # A session of its own, so that Ctrl-C in the terminal reaches only the parent.
            self._process = subprocess.Popen(
                command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def require_running(self) -> None:
        """
        Raise unless it runs.

        Raises
        ------
        ProcessError
            With the end of its log.
        """
        if not self.running:
            raise ProcessError(f'{self.name} ended with exit code {self._process.returncode}; '
                               + self.log_tail())

    def require_success(self) -> None:
        """
        Raise unless it has ended with exit code 0.

        Raises
        ------
        ProcessError
            With the end of its log.
        """
        if self._process.returncode != 0:
            raise ProcessError(f'{self.name} ended with exit code {self._process.returncode} '
                               f'instead of 0; {self.log_tail()}')

    def log_tail(self) -> str:
        """Quote the last lines of the log."""
        lines = self.log.read_text(errors='replace').splitlines()[-TAIL_LINES:]
        return f'the end of {self.log}:\n' + '\n'.join(f'  | {line}' for line in lines)

    def stop(self) -> None:
        """Ask it to end as Ctrl-C does, and kill it only if it does not."""
        if self.running:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
