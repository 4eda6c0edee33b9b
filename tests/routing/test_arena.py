"""RouterArena's files: what its checker looks at, from scores and from a router folder."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from satlight.cli import main
from satlight.errors import SatlightError
from satlight.routing.arena import ArenaPrompt, arena_predictions, read_arena_prompts, save_arena

PROMPTS = [
    {"global index": "AIME_1", "prompt_formatted": "What is 1+1?"},
    {"global index": "ArcMMLU_98", "prompt_formatted": 'Löse:\n"x" {y}', "prompt": "not this one"},
    {"global index": "QANTA_7", "prompt": "Who?"},
]
TEXTS = ["What is 1+1?", 'Löse:\n"x" {y}', "Who?"]
SCORES = np.array([[0.1, 0.9, 0.5], [2.0, -1.0, 2.0], [0.0, 0.0, 0.1]])


@pytest.fixture
def prompts() -> list[ArenaPrompt]:
    return [ArenaPrompt(one["global index"], text) for one, text in zip(PROMPTS, TEXTS, strict=True)]


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "router_data.json"
    path.write_text(json.dumps(PROMPTS))
    return path


def complaints(folder: Path, name: str, dataset: list[dict], split: str = "full") -> list[str]:
    """What RouterArena's checker says, rewritten from what it does: names, size, prompts, models."""
    models = json.loads((folder / "config" / f"{name}.json").read_text())["pipeline_params"]["models"]
    suffix = "-robustness" if split == "robustness" else ""
    entries = json.loads((folder / "predictions" / f"{name}{suffix}.json").read_text())
    prompt_of = {one["global index"]: one.get("prompt_formatted") or one.get("prompt") for one in dataset}
    regular = [entry for entry in entries if not entry.get("for_optimality", False)]
    found = [] if len(regular) == len(dataset) else [f"{len(regular)} entries"]
    for entry in regular:
        if entry["prompt"] != prompt_of.get(entry["global index"]):
            found.append(f"prompt of {entry['global index']}")
        if entry["prediction"] not in models:
            found.append(f"model {entry['prediction']}")
    return found


# -- in Python ---------------------------------------------------------------------------------------------


def test_prompts_as_a_list_or_as_lines(file, tmp_path, prompts):
    assert read_arena_prompts(file) == prompts
    lines = tmp_path / "lines.jsonl"
    lines.write_text("\n".join(json.dumps(one, ensure_ascii=False) for one in PROMPTS) + "\n\n")
    assert read_arena_prompts(lines) == prompts


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "[]", "a list of prompts that is not empty"),
        ("a.json", '{"global index": "a"}', "a list of prompts"),
        ("a.json", "[", "not valid JSON"),
        ("a.jsonl", '{"global index": "a", "prompt": "x"}\n{', "line 2: not valid JSON"),
        ("a.json", '[{"global index": "a", "prompt": "x"}, {"prompt": "x"}]', r"entry 1 .*: got \['prompt'\]"),
        ("a.json", '[{"global index": "a", "prompt_formatted": ""}]', "'prompt_formatted'"),
        ("a.json", '["a"]', "got str; an object"),
        ("a.json", '[{"global index": "a", "prompt": "x"}, {"global index": "a", "prompt": "y"}]', "'a' occurs twice"),
    ],
)
def test_prompts_that_are_none(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(SatlightError, match=message):
        read_arena_prompts(tmp_path / name)


def test_a_file_that_is_not_there(tmp_path):
    for name in ("none.json", "none.jsonl"):
        with pytest.raises(SatlightError, match="none"):
            read_arena_prompts(tmp_path / name)


def test_the_best_model_of_each_prompt_and_the_others(prompts):
    entries = arena_predictions(prompts, SCORES, ["a", "b", "c"], {"ArcMMLU_98"})
    assert [(e["global index"], e["prediction"], e["for_optimality"]) for e in entries] == [
        ("AIME_1", "b", False),
        ("ArcMMLU_98", "a", False),  # the first of equals
        ("QANTA_7", "c", False),
        ("ArcMMLU_98", "b", True),
        ("ArcMMLU_98", "c", True),
    ]
    assert entries[1] == {
        "global index": "ArcMMLU_98",
        "prompt": TEXTS[1],
        "prediction": "a",
        "generated_result": None,
        "cost": None,
        "accuracy": None,
        "for_optimality": False,
    }


@pytest.mark.parametrize(
    ("scores", "models", "optimality", "message"),
    [
        (SCORES[:2], ["a", "b", "c"], (), r"shape \(2, 3\) for 3 prompts x 3 models, 0 of them"),
        (SCORES * np.nan, ["a", "b", "c"], (), "9 of them not finite"),
        (SCORES, ["a", "b", "a"], (), "the same name for RouterArena: 'a', 'b', 'a'"),
        (SCORES, ["a", "b", "c"], ["AIME_1", "AIME_2"], "1 of 2 prompts for optimality .* 'AIME_2'"),
    ],
)
def test_predictions_that_cannot_be(prompts, scores, models, optimality, message):
    with pytest.raises(SatlightError, match=message):
        arena_predictions(prompts, scores, models, optimality)


def test_files_for_the_checker(prompts, tmp_path):
    entries = arena_predictions(prompts, SCORES, ["a", "b", "c"], {"AIME_1"})
    config, predictions = save_arena(tmp_path, "mine", ["a", "b", "c"], entries)
    assert (
        config.read_text()
        == json.dumps({"pipeline_params": {"router_name": "mine", "models": ["a", "b", "c"]}}, indent=2) + "\n"
    )
    assert "Löse" in predictions.read_text(encoding="utf-8")
    assert complaints(tmp_path, "mine", PROMPTS) == []
    assert complaints(tmp_path, "mine", PROMPTS[:2]) == ["3 entries", "prompt of QANTA_7"]


def test_a_configuration_is_kept(prompts, tmp_path):
    """People add keys to it, such as router_cls_name."""
    (tmp_path / "config").mkdir()
    own = '{"pipeline_params": {"router_name": "mine", "router_cls_name": "Mine", "models": ["a", "b", "c"]}}'
    (tmp_path / "config" / "mine.json").write_text(own)
    entries = arena_predictions(prompts, SCORES, ["a", "b", "c"])
    save_arena(tmp_path, "mine", ["a", "b", "c"], entries, robustness=True)
    assert (tmp_path / "config" / "mine.json").read_text() == own
    assert complaints(tmp_path, "mine", PROMPTS, "robustness") == []
    with pytest.raises(SatlightError, match="exists with other models: 'a', 'b', 'c'; the models now are 'a', 'b'"):
        save_arena(tmp_path, "mine", ["a", "b"], entries)


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".hidden"])
def test_names_that_are_no_file(name, tmp_path):
    with pytest.raises(SatlightError, match="Got the router name"):
        save_arena(tmp_path, name, ["a"], [])


# -- on the command line -----------------------------------------------------------------------------------


def predictions_of(folder: Path, name: str) -> list[tuple[str, str]]:
    entries = json.loads((folder / "predictions" / f"{name}.json").read_text())
    return [(entry["global index"], entry["prediction"]) for entry in entries]


@pytest.fixture
def scores(tmp_path) -> Path:
    path = tmp_path / "scores.parquet"
    keys = [one["global index"] for one in PROMPTS]
    table = pl.DataFrame({"instruction_id": keys, **{f"org/{m}": SCORES[:, c] for c, m in enumerate("abc")}})
    table.reverse().write_parquet(path)
    return path


def test_from_scores(file, scores, tmp_path, capsys):
    names = tmp_path / "names.json"
    names.write_text('{"org/b": "b-2024"}')
    main(
        [
            "export-arena",
            "--prompts",
            str(file),
            "--scores",
            str(scores),
            "--name",
            "mine",
            "--to",
            str(tmp_path),
            "--names",
            str(names),
            "--optimality",
            str(file),
        ]
    )
    chosen = [("AIME_1", "b-2024"), ("ArcMMLU_98", "org/a"), ("QANTA_7", "org/c")]
    assert predictions_of(tmp_path, "mine")[:3] == chosen
    assert len(predictions_of(tmp_path, "mine")) == 3 + 3 * 2
    assert complaints(tmp_path, "mine", PROMPTS) == []
    assert capsys.readouterr().out.split() == [str(tmp_path / kind / "mine.json") for kind in ("config", "predictions")]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--candidates", "org/a,org/d"], "'org/d'. Scored are 3"),
        (["--names", "NAMES"], "names 'org/z'; the candidates are 'org/a', 'org/b', 'org/c'"),
    ],
)
def test_mistakes_are_named(file, scores, tmp_path, capsys, more, message):
    (tmp_path / "names.json").write_text('{"org/z": "z"}')
    words = [word.replace("NAMES", str(tmp_path / "names.json")) for word in more]
    with pytest.raises(SystemExit) as stop:
        main(
            [
                "export-arena",
                "--prompts",
                str(file),
                "--scores",
                str(scores),
                "--name",
                "x",
                "--to",
                str(tmp_path),
                *words,
            ]
        )
    assert stop.value.code == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "predictions").exists()


def test_from_a_router_folder(file, tmp_path):
    from satlight.modules import CapabilityEncoder, ModelSAT, RouterLLM
    from satlight.routing import CapabilityRouter
    from satlight.types import Candidate, Capability

    zoo = [Candidate("a"), Candidate("b"), Candidate("c")]
    notes = [Capability(notes=(text,)) for text in ("It is good at law.", "It is poor.", "It can count.")]
    module = ModelSAT(RouterLLM("tiny:llama"), CapabilityEncoder("tiny:bert"))
    router = CapabilityRouter(module, zoo, notes)
    router.save(tmp_path / "router")
    for name, batch in (("one", "2"), ("two", "32")):
        main(
            [
                "export-arena",
                "--prompts",
                str(file),
                "--router",
                str(tmp_path / "router"),
                "--name",
                name,
                "--to",
                str(tmp_path),
                "--batch-size",
                batch,
                "--candidates",
                "c,a",
            ]
        )
    expected = [ranking.best for ranking in router.route(TEXTS, candidates=["c", "a"])]
    assert [model for _, model in predictions_of(tmp_path, "one")] == expected
    assert predictions_of(tmp_path, "two") == predictions_of(tmp_path, "one")
    assert json.loads((tmp_path / "config" / "one.json").read_text())["pipeline_params"]["models"] == ["c", "a"]
