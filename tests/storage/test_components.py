"""Components that users write are exported, loaded where they are allowed, and routed with."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from satlight.cli import main
from satlight.errors import SatlightError
from satlight.modules import CapabilityEncoder, ModelSAT, RouterLLM
from satlight.routing import Router
from satlight.storage.classes import Configured, describe

TEXTS = ["What is 2+2?", "Name three rivers."]
KINDS = {
    "encoder of the page": lambda mine: ModelSAT(
        RouterLLM("tiny:llama"), mine.MaxPooledEncoder("tiny:bert"), objective=mine.Brier()
    ),
    "that encoder alone": lambda mine: mine.MaxPooledEncoder("tiny:bert", max_tokens=64),
    "router LLM": lambda mine: ModelSAT(mine.ScaledLLM(scale=3.0), CapabilityEncoder("tiny:bert")),
    "router LLM alone": lambda mine: mine.ScaledLLM("tiny:llama", 3.0),
    "several encoders": lambda mine: mine.Voting(
        RouterLLM("tiny:llama"),
        CapabilityEncoder("tiny:bert"),
        [mine.MaxPooledEncoder("tiny:bert"), CapabilityEncoder("tiny:bert", max_tokens=64)],
        weight=2.0,
    ),
}


@pytest.fixture
def folder(mine, make_router, tmp_path) -> Path:
    make_router(KINDS["router LLM"](mine)).save(tmp_path / "router")
    return tmp_path / "router"


@pytest.fixture
def register(monkeypatch, tmp_path):
    """Install a distribution that registers modules under an entry point group."""

    def install(value: str, group: str = "satlight.components") -> None:
        info = tmp_path / "site" / "mine_components-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine-components\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\nmine = {value}\n")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))

    return install


@pytest.mark.parametrize("kind", KINDS)
def test_components_survive_a_folder(mine, make_router, contents, tmp_path, kind):
    router = make_router(KINDS[kind](mine))
    expected = router.score(TEXTS).log_odds_BC
    router.save(tmp_path / "router")
    loaded = Router.from_pretrained(tmp_path / "router", allow=["mine"])
    assert type(loaded.module) is type(router.module)
    assert np.allclose(loaded.score(TEXTS).log_odds_BC, expected, atol=1e-5)
    assert expected.std() > 1e-4
    assert loaded.route(TEXTS[0]).best == router.route(TEXTS[0]).best
    loaded.save(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "router")


def test_a_router_class_of_ones_own(mine, make_router, tmp_path):
    router = make_router(router_class=mine.Shifted)
    router.save(tmp_path / "router")
    loaded = Router.from_pretrained(tmp_path / "router", allow=["mine"])
    assert isinstance(loaded, mine.Shifted)
    plain = make_router().score(TEXTS).log_odds_BC
    assert np.allclose(loaded.score(TEXTS).log_odds_BC, plain + 1, atol=1e-5)


def test_own_arguments_are_kept(folder):
    loaded = Router.from_pretrained(folder, allow=["mine"])
    assert loaded.module.router_llm.scale == 3.0
    args = json.loads((folder / "config.json").read_text())["init_args"]["module"]["init_args"]
    assert args["router_llm"] == {
        "class_path": "mine.ScaledLLM",
        "init_args": {"backbone": {"path": "router_llm"}, "scale": 3.0},
    }


def test_they_are_refused_unless_allowed(folder, tmp_path):
    with pytest.raises(SatlightError, match=r"class_path is 'mine\.ScaledLLM'; allowed .*allow=\[\.\.\.\]"):
        Router.from_pretrained(folder)
    with pytest.raises(SatlightError, match=r"mine\.ScaledLLM"):
        Router.from_pretrained(folder, allow=["min", "mine.sub", "mine2"])


@pytest.mark.parametrize("value", ["mine", "mine:ScaledLLM"])
def test_an_entry_point_allows_a_module(folder, register, value):
    register(value)
    assert len(Router.from_pretrained(folder).route(TEXTS)) == 2


def test_an_entry_point_of_another_group_or_module_does_not(folder, register):
    register("mine", group="console_scripts")
    with pytest.raises(SatlightError, match=r"mine\.ScaledLLM"):
        Router.from_pretrained(folder)


def test_route_with_a_component(folder, capsys):
    assert main(["route", "--router", str(folder), "--allow", "mine", TEXTS[0]]) is None
    assert len(json.loads(capsys.readouterr().out)["ranking"]) == 3
    with pytest.raises(SystemExit) as stop:
        main(["route", "--router", str(folder), TEXTS[0]])
    assert stop.value.code == 1
    assert "--allow" in capsys.readouterr().err


def test_a_component_that_is_not_installed_or_broken(folder, monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "mine")
    path = [entry for entry in sys.path if not (Path(entry) / "mine.py").is_file()]
    monkeypatch.setattr(sys, "path", path)
    with pytest.raises(SatlightError, match=r"config\.json: .*No module named 'mine'\. Install its package"):
        Router.from_pretrained(folder, allow=["mine"])
    (tmp_path / "mine.py").write_text("1 / 0\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *path])
    with pytest.raises(SatlightError, match=r"config\.json: .*cannot be imported: division by zero"):
        Router.from_pretrained(folder, allow=["mine"])


def test_a_constructor_that_fails(mine, make_router, tmp_path):
    make_router(mine.Strict()).save(tmp_path / "router")
    with pytest.raises(SatlightError, match=r"config\.json: Strict cannot be built .*a mistake of the user's"):
        Router.from_pretrained(tmp_path / "router", allow=["mine"])


def test_a_constructor_without_a_place_for_weights(mine, make_router, tmp_path):
    with pytest.raises(SatlightError, match=r"Sealed cannot be stored .*takes nothing, but not 'backbone'"):
        make_router(mine.Sealed()).save(tmp_path / "router")
    assert not (tmp_path / "router").exists()


class Box(Configured):
    """Holds anything."""

    def __init__(self, content: object) -> None: ...


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (object(), "argument 'content' is a object"),
        ({1: 2}, "argument 'content' is a dict"),
        (float("nan"), "argument 'content' is a float"),
        ([{"a": print}], "argument 'a' is a builtin_function"),
    ],
)
def test_arguments_that_a_folder_cannot_hold(content, message, tmp_path):
    with pytest.raises(SatlightError, match=message):
        describe(Box(content), tmp_path)


def test_a_class_that_cannot_be_imported_again(tmp_path):
    class Inner(Box):
        pass

    with pytest.raises(SatlightError, match=r"Inner cannot be stored .*Move it to the top level"):
        describe(Inner(1), tmp_path)
