"""Import transformers faster in a process that only scores. Needs no model library itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any


def is_scoring_only() -> bool:
    """Return whether ``SATLIGHT_SCORING_ONLY=1`` declares that this process will not train."""
    return os.environ.get("SATLIGHT_SCORING_ONLY") == "1"


def import_transformers() -> None:
    """Import the core of transformers; in a process that only scores, without what scoring never uses.

    transformers imports torch's compiler, torch's distributed tensors and scipy at start-up, which takes a
    third of its import time. Models of one process in eager mode need none of them. Where a release of torch
    or transformers does not allow to leave them out, transformers is imported as usual.
    """
    if not is_scoring_only() or "transformers" in sys.modules:
        return
    try:
        with reduced_environment():
            import transformers.generation.utils
            import transformers.masking_utils
            import transformers.modeling_utils  # noqa: F401
    except Exception:  # whatever an import can raise that finds less than it expects
        for name in [name for name in sys.modules if name.partition(".")[0] == "transformers"]:
            del sys.modules[name]


@contextmanager
def reduced_environment() -> Iterator[None]:
    """Let scipy and torch.distributed look unavailable, and put a stand-in at ``torch._dynamo``.

    Does nothing in a process that may train, or for what is already imported.
    """
    import torch

    stand_ins: dict[str, Any] = {"scipy": None, "torch._dynamo": _Compiler(torch)}  # None = not installed
    stand_ins = {name: module for name, module in stand_ins.items() if name not in sys.modules}
    if not is_scoring_only():
        stand_ins = {}
    is_available = torch.distributed.is_available
    if stand_ins:
        torch.distributed.is_available = lambda: False
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        torch.distributed.is_available = is_available
        for name in stand_ins:
            del sys.modules[name]


class _Compiler(ModuleType):
    """Stand in for ``torch._dynamo``: decorators return functions unchanged, submodules can be imported."""

    def __init__(self, torch: ModuleType) -> None:
        super().__init__("torch._dynamo")
        self.__path__ = [str(Path(torch.__path__[0], "_dynamo"))]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda function=None, *args, **options: function or (lambda decorated: decorated)
