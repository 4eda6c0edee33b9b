"""Measure durations on a machine that may be busy with other work."""

from __future__ import annotations

import resource
import time


def clock() -> float:
    """Return CPU seconds; wall-clock seconds on CUDA. The difference of two readings is a duration.

    CPU time includes the child processes that this process has waited for. With one thread it equals the
    wall-clock time of an idle machine, no matter how busy this one is. While a GPU works, the CPU waits, so
    that CPU time would be too short.

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
