"""Read items ahead of their use, in a thread with a bounded queue."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TypeVar

Item = TypeVar('Item')

QUEUE_SIZE = 4
POLL_S = 0.1


def read_ahead(items: Iterable[Item], queue_size: int = QUEUE_SIZE) -> Generator[Item, None, None]:
    """
    Iterate over `items` in a thread, so that reading and decoding overlap with their use.

    Parameters
    ----------
    items : iterable
    queue_size : int
        Largest number of items read ahead.

    Yields
    ------
    item
        In order.  An exception of the iterable is raised here, after the items before it.
        Closing this iterator ends the thread.

    Examples
    --------
    >>> list(read_ahead(number ** 2 for number in range(4)))
    [0, 1, 4, 9]
    """
    queue: Queue[tuple[Item] | BaseException | None] = Queue(queue_size)
    stopped = Event()

    def put(item: tuple[Item] | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                queue.put(item, timeout=POLL_S)
                return True
            except Full:
                continue
        return False

    def read() -> None:
        try:
            for item in items:
                if not put((item,)):
                    return
            put(None)
        except BaseException as err:  # raised again in the thread that uses the items
            put(err)

    thread = Thread(target=read, name='read_ahead', daemon=True)
    thread.start()
    try:
        while True:
            item = queue.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item[0]
    finally:
        stopped.set()
        while thread.is_alive():
            try:
                queue.get_nowait()
            except Empty:
                thread.join(POLL_S)
