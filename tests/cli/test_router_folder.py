"""The router folder of a run: exported, routed with, extended."""

import io
import json
import shutil

import numpy as np
import pytest
import torch

from satlight.routing import Router


def test_the_router_folder_gives_the_scores_of_predict(run, scores, records, unseen):
    router = Router.from_pretrained(run / "router")
    assert router.model_ids == records.model_ids
    assert router.about["unseen_in_training"] == [unseen]
    assert router.about["data"]["simulated"] is True
    texts = dict(zip(records.instructions["instruction_id"], records.texts, strict=True))
    some = scores.head(40)
    got = router.score([texts[key] for key in some["instruction_id"]]).log_odds_BC
    assert np.allclose(got, some.drop("instruction_id").to_numpy(), atol=1e-4)
    assert got.std() > 1e-3


def test_an_unseen_candidate_is_admitted_as_if_it_had_been_exported(run, records, unseen):
    from satlight.types import AptitudeResults

    whole, part = (Router.from_pretrained(run / "router") for _ in range(2))
    column = whole.model_ids.index(unseen)
    kept = [c for c in range(len(whole.candidates)) if c != column]
    part.candidates = tuple(whole.candidates[c] for c in kept)
    part.capabilities = tuple(whole.capabilities[c] for c in kept)
    ids = records.instructions["instruction_id"].to_list()
    rows = [row for row, key in enumerate(ids) if key in whole.test.item_ids]
    outcomes = records.outcomes[rows, records.model_ids.index(unseen)]
    results = AptitudeResults(tuple(ids[row] for row in rows), tuple(records.texts[row] for row in rows), outcomes)
    admitted = part.admit(whole.candidates[column], results)
    assert admitted.capabilities[-1] == whole.capabilities[column]
    texts = ["What is 2+2?", "Name a river.", "Sort a list in Python."]
    expected = whole.score(texts, admitted.model_ids).log_odds_BC
    assert np.allclose(admitted.score(texts).log_odds_BC, expected, atol=1e-6)
    assert np.allclose(part.score(texts).log_odds_BC, expected[:, :-1], atol=1e-5)


def test_export_writes_the_same_router_elsewhere(run, tmp_path, command):
    result = command("export", run, "--to", tmp_path / "mine")
    assert result.code is None, result.err
    assert result.out.strip() == str(tmp_path / "mine")
    texts = ["What is 2+2?", "Name a river."]
    one, other = Router.from_pretrained(run / "router"), Router.from_pretrained(tmp_path / "mine")
    assert np.allclose(one.score(texts).log_odds_BC, other.score(texts).log_odds_BC, atol=1e-6)
    assert (tmp_path / "mine" / "aptitude.json").read_text() == (run / "router" / "aptitude.json").read_text()
    last = command("export", run, "--checkpoint", "last", "--to", tmp_path / "last")
    assert last.code is None
    weights = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert torch.allclose(Router.from_pretrained(tmp_path / "last").module.router_llm.head, weights["router_llm.head"])


def test_export_of_what_is_no_run(run, tmp_path, command):
    result = command("export", tmp_path)
    assert result.code == 1
    assert "config.yaml does not exist" in result.err
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text("model: {class_path: satlight.modules.Nothing}\ndata: {}\n")
    result = command("export", tmp_path / "run")
    assert result.code == 1
    assert "config.yaml is not what `fit`" in result.err


def test_route_one_instruction(run, command):
    result = command("route", "--router", run / "router", "--top-k", "2", "What is 2+2?")
    assert result.code is None, result.err
    (line,) = result.out.splitlines()
    answer = json.loads(line)
    assert answer["instruction"] == "What is 2+2?"
    expected = Router.from_pretrained(run / "router").route("What is 2+2?", top_k=2)
    assert answer["route"] == expected.best
    assert [choice["model_id"] for choice in answer["ranking"]] == [c.model_id for c in expected.choices]
    assert answer["ranking"][0]["probability"] == pytest.approx(expected.choices[0].probability, abs=1e-6)


def test_route_a_file_and_keep_its_other_keys(run, tmp_path, command):
    texts = ["What is 2+2?", "Naïve café?", "Name a river."]
    path = tmp_path / "requests.jsonl"
    path.write_text(
        "\n\n".join(json.dumps({"id": i, "instruction": text}) for i, text in enumerate(texts)), encoding="utf-8"
    )
    names = "sim-general-400b,sim-coder-1b"
    words = ("--router", run / "router", "--batch-size", "2", "--candidates", names)
    result = command("route", *words, "--file", path)
    assert result.code is None, result.err
    answers = [json.loads(line) for line in result.out.splitlines()]
    assert [(answer["id"], answer["instruction"]) for answer in answers] == list(enumerate(texts))
    for answer in answers:
        assert {choice["model_id"] for choice in answer["ranking"]} == set(names.split(","))
        assert answer["route"] == answer["ranking"][0]["model_id"]


def test_route_standard_input_as_lines_or_json(run, command, monkeypatch):
    lines = 'What is 2+2?\n\n{"instruction": "Name a river.", "id": 7}\n'
    for form, text, expected in (
        ((), lines, [("What is 2+2?", None), (lines.split("\n")[2], None)]),
        (("--input-format", "jsonl"), lines.split("\n")[2], [("Name a river.", 7)]),
    ):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        result = command("route", "--router", run / "router", *form)
        assert result.code is None, result.err
        answers = [json.loads(line) for line in result.out.splitlines()]
        assert [(answer["instruction"], answer.get("id")) for answer in answers] == expected


def test_route_as_a_table(run, command):
    result = command("route", "--router", run / "router", "--format", "table", "[bold]What[/bold] is 2+2?")
    assert result.code is None, result.err
    assert "[bold]What[/bold] is 2+2?" in result.out
    assert "probability" in result.out
    assert sum(" %" in line for line in result.out.splitlines()) == 6


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--candidates", "gpt-9", "Hi"], "does not know the candidates ['gpt-9']"),
        (["--top-k", "0", "Hi"], "top_k is 0"),
        (["--file", "no.jsonl"], "--file no.jsonl: there is no such file"),
        (["--file", "no.jsonl", "Hi"], "not both"),
        ([" "], "The instruction is empty"),
    ],
)
def test_route_mistakes_are_named(run, command, more, message):
    result = command("route", "--router", run / "router", *more)
    assert result.code == 1
    assert result.err.startswith("error: ")
    assert message in result.err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", "line 2: not valid JSON"),
        ('{"text": "Hi"}', "line 2: 'instruction' must be a text that is not empty, or chat messages with one, got"),
        ('["Hi"]', "line 2: 'instruction' must be"),
        ('{"instruction": "  "}', "line 2: 'instruction' must be"),
    ],
)
def test_route_names_the_line(run, tmp_path, command, line, message):
    path = tmp_path / "requests.jsonl"
    path.write_text('{"instruction": "Hi"}\n' + line + "\n")
    result = command("route", "--router", run / "router", "--file", path)
    assert result.code == 1
    assert message in result.err


def test_route_without_a_router(tmp_path, command):
    result = command("route", "--router", tmp_path, "Hi")
    assert result.code == 1
    assert "config.json cannot be read" in result.err
