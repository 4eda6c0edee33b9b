"""Read in one thread while another works, so that what has arrived is not kept waiting."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

Item = TypeVar("Item")


def arriving(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of items that have arrived, as soon as there is one.

    Args:
        items: Read in a thread, at most ``size`` ahead; what it raises is raised here.
        size: Maximum length of a list.

    Example:
        >>> sum(arriving(iter("abc"), size=2), [])
        ['a', 'b', 'c']
    """
    waiting: queue.Queue[tuple[bool, Item | BaseException | None]] = queue.Queue(size)

    def read() -> None:
        try:
            for item in items:
                waiting.put((True, item))
            waiting.put((False, None))
        except BaseException as error:
            waiting.put((False, error))

    threading.Thread(target=read, daemon=True, name="satlight-reader").start()
    while True:
        group: list[Item] = []
        more, item = waiting.get()
        while more:
            group.append(item)  # type: ignore[arg-type]
            if len(group) == size or waiting.empty():
                break
            more, item = waiting.get()
        if group:
            yield group
        if not more:
            if isinstance(item, BaseException):
                raise item
            return
