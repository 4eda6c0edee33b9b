"""User-written components: the examples of the documentation and two with arguments of their own."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "add_a_component.md"

OWN = '''
from satlight.modules import ModelSAT, RouterLLM
from satlight.routing import CapabilityRouter


class ScaledLLM(RouterLLM):
    """Takes few arguments, one of them its own."""

    def __init__(self, backbone: str = "tiny:llama", scale: float = 1.0):
        super().__init__(backbone)
        self.scale = scale

    def forward(self, *args):
        return self.scale * super().forward(*args)


class Voting(ModelSAT):
    """Averages several encoders, which each have a folder."""

    def __init__(self, router_llm: RouterLLM, encoder=None, others=(), weight: float = 0.5):
        super().__init__(router_llm, encoder)
        self.others, self.weight = torch.nn.ModuleList(others), weight

    def score(self, block):
        votes = sum(other.score(block) for other in self.others)
        return super().score(block) + self.weight * votes


class Shifted(CapabilityRouter):
    def log_odds(self, requests, candidates):
        return super().log_odds(requests, candidates) + 1


class Sealed(RouterLLM):
    """Cannot be stored: its constructor has no place for its weights."""

    def __init__(self):
        super().__init__("tiny:llama")


class Strict(RouterLLM):
    def __init__(self, backbone: str = "tiny:llama", broken: bool = False):
        if backbone != "tiny:llama":
            raise ZeroDivisionError("a mistake of the user's")
        super().__init__(backbone)
'''


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The module `mine` that docs/add_a_component.md talks of, with more."""
    blocks = re.findall(r"```python\n(.+?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    folder = tmp_path_factory.mktemp("components")
    (folder / "mine.py").write_text("\n\n".join([*blocks, OWN]), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield importlib.import_module("mine")
        del sys.modules["mine"]
