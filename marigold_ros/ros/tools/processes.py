"""Run child processes in a ROS domain of their own, log to files and stop them cleanly."""

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

# Their ports are outside Linux's ephemeral range, and these domains are rarely used.
DOMAINS = range(215, 233)
# The ports of a domain begin at 7400 + 250 * id (RTPS 2.5, 9.6.2.3).  Offset 0 is multicast, which
# participants restricted to this machine do not open; from 10, each participant has two.
DISCOVERY_PORT_OFFSETS = (0, *range(10, 30, 2))
STOP_TIMEOUT_S = 30.0
POLL_S = 0.05
LOG_TAIL_LINES = 20


class ProcessError(MarigoldError):
    """A child process failed, ended early or did not end in time."""


def is_domain_in_use(domain: int) -> bool:
    """Check whether one of the first ten participants of a domain is on this machine."""
    for offset in DISCOVERY_PORT_OFFSETS:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(('', 7400 + 250 * domain + offset))
            except OSError:
                return True
    return False


def find_free_domain() -> int:
    """
    Return a random ROS domain that is not in use on this machine.

    Raises
    ------
    ConfigError
        If all are in use.
    """
    for domain in random.sample(DOMAINS, len(DOMAINS)):
        if not is_domain_in_use(domain):
            return domain
    raise ConfigError(f'the ROS domains {DOMAINS[0]} to {DOMAINS[-1]} are all in use')


def make_domain_environment(domain: int) -> dict[str, str]:
    """Return variables that restrict a process to a local domain and unbuffer its output."""
    return {'ROS_DOMAIN_ID': str(domain), 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
            'PYTHONUNBUFFERED': '1'}


def find_package_command(name: str, module: str) -> list[str]:
    """Return the command line of a console script, or of its module if not installed."""
    command = Path(sys.executable).with_name(name)
    return [str(command)] if command.exists() else [sys.executable, '-m', module]


class LoggedProcess:
    """
    Run a command whose output goes to a log file.

    Parameters
    ----------
    name : str
        Name for messages and of the log file.
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
            # In a new session, so that Ctrl-C in the terminal reaches only the parent.
            self._process = subprocess.Popen(
                command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True)

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Return the exit code; None while the process runs."""
        return self._process.poll()

    @property
    def running(self) -> bool:
        """Check whether the process has not ended."""
        return self.exit_code is None

    def require_running(self) -> None:
        """
        Check that the process runs.

        Raises
        ------
        ProcessError
            If it has ended; the text includes the end of its log.
        """
        if not self.running:
            raise ProcessError(f'{self.name} ended with exit code {self._process.returncode}; '
                               + self.log_tail())

    def require_success(self) -> None:
        """
        Check that the process has ended with exit code 0.

        Raises
        ------
        ProcessError
            If it has not; the text includes the end of its log.
        """
        if self._process.returncode != 0:
            raise ProcessError(f'{self.name} ended with exit code {self._process.returncode} '
                               f'instead of 0; {self.log_tail()}')

    def log_tail(self) -> str:
        """Format the last lines of the log."""
        lines = self.log.read_text(errors='replace').splitlines()[-LOG_TAIL_LINES:]
        return f'end of {self.log}:\n' + '\n'.join(f'  | {line}' for line in lines)

    def wait_for_log(self, text: str, timeout_s: float = 120.0) -> str:
        """
        Wait until the log contains a text and return the log.

        Raises
        ------
        ProcessError
            If the process ends or the time runs out before.
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
        """Wait for the process to end, kill it after the timeout, and return its exit code."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return self.kill()

    def send_signal(self, number: int) -> None:
        """Send a signal unless the process has ended."""
        self._process.send_signal(number)

    def stop(self, number: int = signal.SIGINT) -> int:
        """Interrupt the process, kill it after a timeout, and return its exit code."""
        self.send_signal(number)
        return self.wait(STOP_TIMEOUT_S)

    def kill(self) -> int:
        """Kill the process and return its exit code."""
        self._process.kill()
        return self._process.wait()
