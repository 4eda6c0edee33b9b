"""Whatever is wrong with a router folder ends in an error that names the file and says what to do."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from satlight.errors import SatlightError
from satlight.routing import Router

JSON_FILES = ("config.json", "zoo.json", "aptitude.json")
WEIGHTS = ("router.safetensors", "encoder/model.safetensors", "router_llm/model.safetensors")
REMEDY = re.compile(r"(?i)export|takes a folder|design|allow=\[|Remove |this version reads|allowed|it takes|give")


@pytest.fixture
def copy(router_folder, tmp_path) -> Path:
    return Path(shutil.copytree(router_folder, tmp_path / "copy"))


def refused(folder: Path) -> str:
    """The message, which must name a remedy."""
    with pytest.raises(SatlightError) as error:
        Router.from_pretrained(folder)
    assert REMEDY.search(str(error.value)), error.value
    return str(error.value)


def edit(path: Path, change: Callable[[Any], object]) -> None:
    """Change the content of a JSON file in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def module_args(config: dict) -> dict:
    return config["init_args"]["module"]["init_args"]


def test_the_folder_has_the_files_that_are_damaged_below(router_folder):
    assert all((router_folder / name).is_file() for name in (*JSON_FILES, *WEIGHTS))
    Router.from_pretrained(router_folder)


# -- files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*JSON_FILES, *WEIGHTS, "encoder", "router_llm"])
def test_a_missing_file_is_named(copy, name):
    path = copy / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert name.split("/")[0] in refused(copy)


@pytest.mark.parametrize("name", [*WEIGHTS, *JSON_FILES, "encoder/config.json", "router_llm/tokenizer.json"])
@pytest.mark.parametrize("kept", [0, 0.5])
def test_a_truncated_file_is_named(copy, name, kept):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: int(kept * len(content))])
    assert name.split("/")[0] in refused(copy)


@pytest.mark.parametrize("name", JSON_FILES)
@pytest.mark.parametrize("content", ["null", "[]", "[1]", "[null]", "{}", '"text"', "3", "true", "NaN"])
def test_json_of_another_type_is_named(copy, name, content):
    (copy / name).write_text(content)
    assert name in refused(copy)


@pytest.mark.parametrize("name", JSON_FILES)
def test_bytes_that_are_no_text_are_named(copy, name):
    (copy / name).write_bytes(b"\xff\xfe\x00{")
    assert name in refused(copy)


@pytest.mark.parametrize("name", JSON_FILES)
@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"a":', "}")])
def test_nesting_without_end_is_no_crash(copy, name, start, end):
    (copy / name).write_text(start * 100_000 + end * 100_000)
    assert name in refused(copy)


def test_nesting_that_json_reads_but_building_does_not(copy):
    depth = sys.getrecursionlimit() - 200
    deep = json.loads('{"a":' * (depth // 2) + "1" + "}" * (depth // 2))
    edit(copy / "config.json", lambda c: module_args(c).update(perturbations=deep))
    assert "config.json" in refused(copy)


@pytest.mark.parametrize("name", ["evil.pkl", "encoder/pytorch_model.bin", "a/b/c.PT", "scores.npy"])
def test_a_pickle_is_refused_before_anything_is_read(copy, name):
    (copy / name).parent.mkdir(parents=True, exist_ok=True)
    (copy / name).write_bytes(b"\x80\x04.")
    (copy / "config.json").write_text("{broken")
    assert re.search(rf"{re.escape(name)} may hold a pickle", refused(copy))


def test_no_folder_or_an_empty_one(tmp_path):
    assert "does not exist" in refused(tmp_path / "none")
    (tmp_path / "file").write_text("text")
    assert "is no folder" in refused(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "config.json cannot be read" in refused(tmp_path / "empty")


# -- weights -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(copy, name, value):
    tensors = load_file(copy / name)
    key = max((key for key in tensors if tensors[key].is_floating_point()), key=lambda k: tensors[k].numel())
    tensors[key].view(-1)[0] = value
    save_file(tensors, copy / name, metadata={"format": "pt"})
    message = refused(copy)
    assert "not finite" in message
    assert str(copy / name.split("/")[0]) in message


def test_weights_that_do_not_fit_are_refused(copy):
    path = copy / "router.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "projector.linear.weight": torch.zeros(2, 2)}, path)
    assert "projector.linear.weight" in refused(copy)
    save_file({name: value for name, value in tensors.items() if name != "router_llm.head"}, path)
    assert "lacks ['router_llm.head']" in refused(copy)
    save_file({**tensors, "extra": torch.zeros(1)}, path)
    assert "unknown ['extra']" in refused(copy)


# -- config.json -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["satlight-router/9", "", 2, None, ["satlight-router/2"]])
def test_another_format_is_refused(copy, value):
    edit(copy / "config.json", lambda c: c.update(format=value))
    assert "config.json" in refused(copy)


@pytest.mark.parametrize("key", ["format", "class_path", "init_args", "calibration", "about"])
@pytest.mark.parametrize("value", ["missing", None, 3, "text", [], [1]])
def test_keys_of_the_configuration(copy, key, value):
    edit(copy / "config.json", lambda c: c.pop(key) if value == "missing" else c.update({key: value}))
    assert "config.json" in refused(copy)


@pytest.mark.parametrize(
    "path",
    [
        "no.such.Module",
        "os.system",
        "subprocess.Popen",
        "builtins.eval",
        "Router",
        "",
        ".",
        "satlight.",
        "satlight..Router",
        "satlight.nothing.Router",
        "satlight.routing.Nothing",
        "satlight.routing.router.torch",
        "satlight.storage.hub.os.system",
        "satlight.storage.provenance.subprocess.Popen",
        "satlight.storage.classes.import_module",
        "satlight.files.Path",
        "satlight.modules.ModelSAT",  # allowed, but no router
        "satlight.types.Candidate",
        "satlight.routers.Router",  # abstract
        "satlight.__main__.main",
        "satlight_evil.Router",
        None,
        3,
        {"a": 1},
    ],
)
def test_class_paths_of_routers(copy, path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["satlight", "--help"])
    edit(copy / "config.json", lambda c: c.update(class_path=path))
    assert "config.json" in refused(copy)


@pytest.mark.parametrize("path", ["os.system", "subprocess.Popen", "satlight.types.Candidate", "no.Such", None])
def test_class_paths_of_parts(copy, path):
    def change(config: dict) -> None:
        config["init_args"]["module"]["class_path"] = path

    edit(copy / "config.json", change)
    assert "config.json" in refused(copy)


def test_an_allowed_module_does_not_allow_its_neighbours(copy):
    edit(copy / "config.json", lambda c: c.update(class_path="mine_too.Router"))
    with pytest.raises(SatlightError, match=r"mine_too\.Router.*allow=\[\.\.\.\]"):
        Router.from_pretrained(copy, allow=["mine"])


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["init_args"].update(colour="red"),
        lambda c: c["init_args"].pop("module"),
        lambda c: c["init_args"].update(module=3),
        lambda c: c["init_args"].update(module=None),
        lambda c: c["init_args"].update(candidates=[]),
        lambda c: module_args(c).update(colour="red"),
        lambda c: module_args(c).pop("router_llm"),
        lambda c: module_args(c).update(router_llm=3),
        lambda c: module_args(c).update(encoder="text"),
        lambda c: module_args(c).update(perturbations="many"),
        lambda c: module_args(c).update(perturbations=None),
        lambda c: module_args(c)["encoder"]["init_args"].update(chunking="sideways"),
        lambda c: module_args(c)["encoder"]["init_args"].update(max_tokens="many"),
        lambda c: module_args(c)["router_llm"]["init_args"].update(order="sideways"),
        lambda c: module_args(c)["router_llm"]["init_args"].update(candidate_layers=[1]),
        lambda c: module_args(c)["router_llm"].update(init_args=[]),
        lambda c: module_args(c)["router_llm"].pop("init_args"),
        lambda c: module_args(c).update(objective={"class_path": "os.system", "init_args": {}}),
    ],
)
def test_arguments_that_are_unknown_missing_or_wrong(copy, change):
    edit(copy / "config.json", change)
    assert "config.json" in refused(copy)


@pytest.mark.parametrize("path", ["../other", "/etc", "encoder/../../other", "link", None, 3, ["encoder"], ""])
def test_a_path_that_leaves_the_folder(copy, path):
    shutil.copytree(copy / "encoder", copy.parent / "other")
    os.symlink(copy.parent / "other", copy / "link")

    def change(config: dict) -> None:
        module_args(config)["encoder"]["init_args"]["backbone"] = {"path": path}

    edit(copy / "config.json", change)
    assert "config.json" in refused(copy)


@pytest.mark.parametrize("name", ["smollm2-135m", "org/model", "/etc", "../other", "tiny:bert"])
def test_a_backbone_outside_the_folder_is_not_loaded(copy, name):
    """A name in place of a path would download weights, or read a folder of this machine."""
    shutil.copytree(copy / "encoder", copy.parent / "other")

    def change(config: dict) -> None:
        module_args(config)["encoder"]["init_args"]["backbone"] = name

    edit(copy / "config.json", change)
    assert "config.json" in refused(copy)


@pytest.mark.parametrize(
    "value",
    [
        {"temperature": 0.0, "bias": 0.0},
        {"temperature": -1.0, "bias": 0.0},
        {"temperature": float("nan"), "bias": 0.0},
        {"temperature": float("inf"), "bias": 0.0},
        {"temperature": 1.0, "bias": float("inf")},
        {"temperature": "hot", "bias": 0.0},
        {"temperature": None, "bias": None},
        {"temperature": [1.0], "bias": 0.0},
        {"temperature": 10**400, "bias": 0.0},
        {"colour": "red"},
    ],
)
def test_a_calibration_that_is_none(copy, value):
    edit(copy / "config.json", lambda c: c.update(calibration=value))
    assert "config.json" in refused(copy)


# -- zoo.json and aptitude.json ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda zoo: zoo.append(zoo[0]),
        lambda zoo: zoo.append({**zoo[0], "model_id": "org/new"}),  # without a capability
        lambda zoo: zoo[0].pop("model_id"),
        lambda zoo: zoo[0].update(colour="red"),
        lambda zoo: zoo[0].update(model_id=3),
        lambda zoo: zoo[0].update(model_id=None),
        lambda zoo: zoo[0].update(model_id=""),
        lambda zoo: zoo[0].update(notes=3),
        lambda zoo: zoo[0].update(notes=[3]),
        lambda zoo: zoo[0].update(notes="text"),
        lambda zoo: zoo[0].update(params_b="large"),
        lambda zoo: zoo.__setitem__(0, "text"),
        lambda zoo: zoo.clear(),
    ],
)
def test_a_zoo_that_is_none(copy, change):
    edit(copy / "zoo.json", change)
    assert re.search(r"zoo\.json|aptitude\.json", refused(copy))


def first(aptitude: dict) -> dict:
    return aptitude["capabilities"]["org/poor-1b"]


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.pop("test"),
        lambda a: a.pop("text"),
        lambda a: a.pop("capabilities"),
        lambda a: a.update(test={"format": "other"}),
        lambda a: a.update(test=[1]),
        lambda a: a.update(text={"colour": "red"}),
        lambda a: a.update(text={"style": "sideways", "shots": None, "order_seed": None}),
        lambda a: a.update(text={"style": "plain", "shots": "many", "order_seed": None}),
        lambda a: a.update(capabilities=[]),
        lambda a: a["capabilities"].pop("org/poor-1b"),
        lambda a: first(a).update(style="sideways"),
        lambda a: first(a).update(notes=[3]),
        lambda a: first(a).update(notes="text"),
        lambda a: first(a).update(results=[3]),
        lambda a: first(a)["results"][0].update(colour="red"),
        lambda a: first(a)["results"][0].pop("accuracy"),
        lambda a: first(a)["results"][0].update(accuracy="high"),
        lambda a: first(a)["results"][0].update(strength=None),
        lambda a: first(a)["results"][0].update(strength=float("nan")),
        lambda a: first(a)["results"][0].update(accuracy=float("inf")),
        lambda a: first(a)["results"][0].update(accuracy=85),
        lambda a: first(a)["results"][0].update(keywords=3),
    ],
)
def test_an_aptitude_file_that_is_none(copy, change):
    edit(copy / "aptitude.json", change)
    assert "aptitude.json" in refused(copy)
