"""Baselines by name: built in, and registered by an entry point."""

import sys
from importlib.metadata import EntryPoint, EntryPoints

import pytest

import satlight.baselines
from satlight.baselines import BUILT_IN, Baseline, available, build
from satlight.errors import SatlightError


class Theirs(Baseline):
    def __init__(self, strength: int = 1) -> None:
        self.strength = strength

    def fit(self, records, embed=None):
        return self

    def predict(self, instructions, candidates):
        raise NotImplementedError


@pytest.fixture
def register(monkeypatch):
    """Pretend that packages with these entry points are installed; ``theirs`` is this very file."""
    monkeypatch.setitem(sys.modules, "theirs", sys.modules[__name__])

    def register(**points: str) -> None:
        found = EntryPoints(
            EntryPoint(name, value, satlight.baselines.ENTRY_POINT_GROUP) for name, value in points.items()
        )
        monkeypatch.setattr(satlight.baselines, "entry_points", lambda group: found.select(group=group))

    return register


def test_all_built_in_ones_load():
    found = available()
    assert list(found) == list(BUILT_IN)
    assert all(issubclass(cls, Baseline) for cls in found.values())


def test_a_registered_one_is_built_with_its_options(register):
    register(theirs="theirs:Theirs")
    assert list(available()) == [*BUILT_IN, "theirs"]
    assert build("theirs", strength=3).strength == 3
    with pytest.raises(SatlightError, match=r"baseline 'theirs': .*'weight'; its options are 'strength'"):
        build("theirs", weight=3)


def test_a_broken_one_does_not_harm_the_others(register, caplog):
    register(broken="no.such.module:Thing", theirs="theirs:Theirs")
    assert list(available()) == [*BUILT_IN, "theirs"]
    assert "baseline 'broken' cannot be loaded from no.such.module:Thing: ModuleNotFoundError" in caplog.text
    with pytest.raises(SatlightError, match="'broken' cannot be loaded"):
        build("broken")


@pytest.mark.parametrize(
    ("points", "name", "message"),
    [
        ({"knn": "theirs:Theirs"}, "linear", "Two baselines are called 'knn'"),
        ({"odd": "theirs:pytest"}, "odd", "theirs:pytest is not a subclass"),
        ({}, "knnn", "There is no baseline 'knnn'; available: 'knn'"),
    ],
)
def test_mistakes_are_named(register, points, name, message):
    register(**points)
    with pytest.raises(SatlightError, match=message):
        build(name)
