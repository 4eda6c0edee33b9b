"""How long something took, on a machine that may do other things as well."""

from __future__ import annotations

import resource
import time


def clock() -> float:
    """Seconds that count; subtract two readings.

    Without a GPU it is the time on the CPU of this process and of the children it has waited for: on one
    thread that is the wall time of an idle machine, however busy this one is. With a GPU, which works while
    the CPU waits, it is wall time.

    Example:
        >>> start = clock()
        >>> _ = sum(range(1_000_000))
        >>> 0 < clock() - start < 10
        True
    """
    import torch

    if torch.cuda.is_available():
        return time.perf_counter()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
