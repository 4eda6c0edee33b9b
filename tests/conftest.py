"""What tests all over the tree share: a quiet log, tiny blocks, and one trained run."""

import logging
from collections.abc import Callable, Iterator

import pytest


@pytest.fixture(autouse=True)
def plain_log() -> Iterator[None]:
    """Undo what the command line does to the log, so that caplog hears satlight in every test."""
    log = logging.getLogger("satlight")
    yield
    log.handlers.clear()
    log.propagate = True
    log.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def make_block() -> Callable:
    """A block of instructions and capabilities; outcomes alternate unless given."""
    import torch

    from satlight.types import Block

    def make(instructions: list[str], capabilities: list[tuple[str, ...]], **tensors: torch.Tensor) -> Block:
        b, c = len(instructions), len(capabilities)
        defaults = {
            "rows": torch.arange(b),
            "columns": torch.arange(c),
            "groups": torch.zeros(b, dtype=torch.long),
            "target_BC": ((torch.arange(b)[:, None] + torch.arange(c)[None, :]) % 2).float(),
            "known_BC": torch.ones(b, c, dtype=torch.bool),
        }
        return Block(list(instructions), list(capabilities), **(defaults | tensors))

    return make
