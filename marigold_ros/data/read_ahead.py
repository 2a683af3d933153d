"""Read frames ahead of who uses them, in a thread, without holding more than a few."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TypeVar

Item = TypeVar('Item')

WAITING = 4
POLL_S = 0.1


def read_ahead(items: Iterable[Item], waiting: int = WAITING) -> Generator[Item, None, None]:
    """
    Iterate in a thread of its own, so that reading and decoding overlap with what is done here.

    Parameters
    ----------
    items : iterable
    waiting : int
        Items that wait at most.

    Yields
    ------
    item
        In order.  What the iterable raises is raised here, in its place; when this iterator is
        closed, the thread ends.
    """
    queue: Queue[tuple[Item] | BaseException | None] = Queue(waiting)
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
        except BaseException as err:  # it is raised where the items are used
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
