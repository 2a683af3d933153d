"""Where the networks run: in a thread of their own, or at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

P = ParamSpec('P')
T = TypeVar('T')


class ImmediateExecutor(Executor):
    """Run every call at once in the calling thread, so that results never depend on timing."""

    def submit(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a call and return its result as a future that is done."""
        future: Future[T] = Future()
        try:
            future.set_result(call(*args, **kwargs))
        except Exception as err:  # of whatever type; the future raises it
            future.set_exception(err)
        return future
