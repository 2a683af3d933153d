"""Child processes in a ROS domain of their own, that log to files and are ended in good order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
import random
import shlex
import signal
import socket
import subprocess
import sys
import time

from marigold_ros.depth.errors import ConfigError, MarigoldError

# Linux leaves their ports alone, and hardly anybody uses them.
DOMAINS = range(215, 233)
# A domain's ports begin at 7400 + 250 times its id: first that for multicast, which participants
# that stay on this machine leave closed, from 10 on two for each participant (RTPS 2.5, 9.6.2.3).
DISCOVERY_PORTS = (0, *range(10, 30, 2))
STOP_S = 30.0
POLL_S = 0.05
TAIL_LINES = 20


class ProcessError(MarigoldError):
    """A child process ended when or how it should not have."""


def domain_in_use(domain: int) -> bool:
    """Say whether a participant of a domain lives on this machine, one of the first ten."""
    for port in DISCOVERY_PORTS:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(('', 7400 + 250 * domain + port))
            except OSError:
                return True
    return False


def free_domain() -> int:
    """
    Pick a domain of which no participant lives on this machine.

    Raises
    ------
    ConfigError
        If there is none.
    """
    for domain in random.sample(DOMAINS, len(DOMAINS)):
        if not domain_in_use(domain):
            return domain
    raise ConfigError(f'the ROS domains {DOMAINS[0]} to {DOMAINS[-1]} are all in use')


def domain_environment(domain: int) -> dict[str, str]:
    """Make the variables that keep a process in a domain of this machine and its log prompt."""
    return {'ROS_DOMAIN_ID': str(domain), 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
            'PYTHONUNBUFFERED': '1'}


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
        """Give the process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Give the exit code; None while it runs."""
        return self._process.poll()

    @property
    def running(self) -> bool:
        """Tell whether it has not ended."""
        return self.exit_code is None

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

    def wait_for_log(self, text: str, timeout_s: float = 120.0) -> str:
        """
        Wait until the log contains a text, and return the log.

        Raises
        ------
        ProcessError
            If the process ends before, or the time.
        """
        end_s = time.monotonic() + timeout_s
        while True:
            running, log = self.running, self.log.read_text(errors='replace')
            if text in log:
                return log
            if not running or time.monotonic() > end_s:
                raise ProcessError(f'{self.name} did not log {text!r}; {self.log_tail()}')
            time.sleep(POLL_S)

    def wait(self, timeout_s: float) -> int:
        """Wait until it has ended by itself, or kill it, and return its exit code."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return self.kill()

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        self._process.send_signal(number)

    def stop(self, number: int = signal.SIGINT) -> int:
        """Ask it to end, as Ctrl-C does, kill it only if it does not, and return its exit code."""
        self.send_signal(number)
        return self.wait(STOP_S)

    def kill(self) -> int:
        """End it at once, and return its exit code."""
        self._process.kill()
        return self._process.wait()
