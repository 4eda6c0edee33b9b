"""Every baseline as a router: scores, folders, and candidates that are admitted without training."""

import filecmp
import json
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.model_selection import ParameterGrid

from satlight.backbones.cross_encoder import load_cross_encoder
from satlight.backbones.embedding import Embedder
from satlight.baselines import BUILT_IN, Baseline, build
from satlight.baselines.base import log_odds
from satlight.baselines.irt import fit_ability
from satlight.errors import SatlightError
from satlight.records.outputs import CandidateOutputs
from satlight.routers import ADMITTING, Router
from satlight.types import AptitudeResults, Candidate

NAMES = ["adds", "sorts", "weak"]
SMALL = {"steps": 20, "decay": 0.1, "clusters": 8, "factors": 16, "abilities": 8}
CASES = [
    *((name, {}) for name in BUILT_IN),
    *(("cluster", {"nearest": 3}), ("uniroute", {"map": "learned"})),
    *(("aptitude_knn", {"embed": None}), ("inferred_dataset", {"embed": None, "label": "task"})),
]
every_case = pytest.mark.parametrize(("name", "options"), CASES, ids=lambda value: str(value) if value else "")
ADMITTED = [name for name in BUILT_IN if name in ADMITTING]


@pytest.fixture(autouse=True)
def small_and_apart(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("satlight.baselines.forest.TREES", 5)
    monkeypatch.setattr("satlight.baselines.uniroute.STEPS", 20)
    monkeypatch.setenv("SATLIGHT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def records(make_records):
    """Two topics with random outcomes, one unknown cell in ten, and three texts that are asked later."""
    rng = np.random.default_rng(0)
    texts = [f"what is the sum of {n}" for n in range(30)] + [f"sort this list {n}" for n in range(30)]
    known = rng.random((60, 3)) < 0.9
    known[:, 0] = True
    return make_records(
        texts,
        np.where(known, rng.integers(0, 2, (60, 3)), 0).tolist(),
        split=["train"] * 60,
        candidates=NAMES,
        datasets=["sums"] * 30 + ["sorts"] * 30,
        tasks=["even", "odd"] * 30,
        known=known,
    )


def fitted(name, records, texts=(), embed="tiny", **options):
    if name == "rerank":
        rows = [(text, model, f"{model} says {text}") for text in texts for model in records.model_ids]
        outputs = CandidateOutputs(pl.DataFrame(rows, ["instruction", "model_id", "output"], orient="row"))
        return build(name, score_pairs=load_cross_encoder("tiny:bert"), outputs=outputs).fit(records)
    baseline = build(name)
    fixed = {key: values[0] for key, values in baseline.GRID.items()}
    fixed |= {key: value for key, value in (SMALL | options).items() if key in fixed}
    return build(name, fixed=fixed).fit(records, Embedder("tiny:bert") if embed == "tiny" else embed)


def folders_equal(one: Path, two: Path) -> bool:
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(two) for path in two.rglob("*") if path.is_file())
    return filecmp.cmpfiles(one, two, [str(path) for path in files], shallow=False)[0] == [str(path) for path in files]


# -- scoring -----------------------------------------------------------------------------------------------


@every_case
def test_a_baseline_survives_its_folder(name, options, records, new_texts, tmp_path):
    router = fitted(name, records, new_texts, **options)
    assert router.candidates == records.candidates
    want = router.score(new_texts)
    router.save(tmp_path / "one")
    state = torch.get_rng_state()
    loaded = Router.from_pretrained(tmp_path / "one")
    assert torch.equal(torch.get_rng_state(), state)
    assert type(loaded) is type(router)
    assert loaded.chosen == router.chosen
    assert np.array_equal(loaded.score(new_texts).log_odds_BC, want.log_odds_BC)
    loaded.save(tmp_path / "two")
    again = Router.from_pretrained(tmp_path / "two")
    assert np.array_equal(again.score(new_texts).log_odds_BC, want.log_odds_BC)
    assert folders_equal(tmp_path / "one", tmp_path / "two")
    assert [one.best for one in loaded.route(new_texts)] == [one.best for one in router.route(new_texts)]
    # Without a candidate, the others keep their scores to the last bit; a network sees other batches.
    rest = ["adds", "weak"]
    want_rest = router.score(new_texts, rest).log_odds_BC
    assert name == "rerank" or np.array_equal(want_rest, want.log_odds_BC[:, [0, 2]])
    again.remove("sorts").save(tmp_path / "three")
    left = Router.from_pretrained(tmp_path / "three")
    assert left.model_ids == rest
    assert np.array_equal(left.score(new_texts).log_odds_BC, want_rest)
    if name == "rerank":
        with pytest.raises(SatlightError, match="cannot rename 'weak': it looks up"):
            left.rename("weak", "sorts")
    else:
        renamed = left.rename("weak", "sorts")  # a removed name is free again
        assert np.array_equal(renamed.score(new_texts, ["sorts"]).log_odds_BC, want.log_odds_BC[:, 2:])


@every_case
def test_scores_are_log_odds_of_expected_outcomes(name, options, records, new_texts):
    router = fitted(name, records, new_texts, **options)
    expected = router.predict(new_texts, ["weak", "adds"])
    scores = router.score(new_texts, ["weak", "adds"])
    if name in ("routerdc", "rerank"):
        assert np.array_equal(scores.log_odds_BC, expected)
    else:
        assert np.array_equal(scores.log_odds_BC, log_odds(expected))
        assert scores.probability_BC == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_baseline_without_fit_says_so(name, tmp_path, new_texts):
    baseline = build(name)
    for attempt in (
        lambda: baseline.score(new_texts),
        lambda: baseline.score(new_texts, ["adds"]),
        lambda: baseline.predict(new_texts, ["adds"]),
        lambda: baseline.save(tmp_path / "router"),
    ):
        with pytest.raises(SatlightError, match=r"has no candidates: call fit\(records\) first"):
            attempt()
    assert not (tmp_path / "router").exists()


def test_points_are_in_the_order_of_the_grid():
    """ParameterGrid sorts names; the first of equally good points must stay the same."""
    mf = build("mf", fixed={"steps": 250})
    values = [(point["factors"], point["decay"], point["steps"]) for point in mf._points()]
    assert values == [(16, 0.1, 250), (16, 1.0, 250), (64, 0.1, 250), (64, 1.0, 250)]
    assert all(point in list(ParameterGrid(dict(mf.GRID))) for point in mf._points())


# -- folders -----------------------------------------------------------------------------------------------


def test_what_cannot_be_stored_is_named(records, embed, tmp_path):
    with pytest.raises(SatlightError, match="KNN cannot be stored: its attribute '_embed' is a function"):
        fitted("knn", records, embed=embed).save(tmp_path / "router")
    judge = lambda pairs: np.zeros(len(pairs))  # noqa: E731
    reranker = build("rerank", score_pairs=judge, outputs=fitted("rerank", records, ["x"]).outputs)
    with pytest.raises(SatlightError, match="'score_pairs' is a function"):
        reranker.fit(records).save(tmp_path / "router")
    assert not (tmp_path / "router").exists()


@pytest.mark.parametrize("name", ["knn", "mf"])
def test_routing_by_a_stored_baseline_imports_no_trainer(name, records, tmp_path):
    fitted(name, records).save(tmp_path / "router")
    code = (
        "import sys; from satlight.cli import main\n"
        f"main(['route', 'sort this list', '--router', {str(tmp_path / 'router')!r}, '--format', 'json'])\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer, modules = done.stdout.splitlines()
    assert json.loads(answer)["route"] in NAMES
    assert not {"lightning", "torchmetrics", "peft"} & set(modules.split())


def test_a_zoo_that_differs_from_the_state_is_refused(records, tmp_path):
    fitted("cluster", records).save(tmp_path)
    zoo = json.loads((tmp_path / "zoo.json").read_text())
    (tmp_path / "zoo.json").write_text(json.dumps(zoo[:2]))
    with pytest.raises(SatlightError, match=r"zoo\.json names .*but state\.json was learned for"):
        Router.from_pretrained(tmp_path)


def test_a_baseline_of_another_package_survives_its_folder(records, new_texts, tmp_path, monkeypatch):
    """An ensemble of a built-in baseline and a module of its own, loaded with ``allow``."""
    mine = types.ModuleType("mine")
    monkeypatch.setitem(sys.modules, "mine", mine)

    class Ensemble(Baseline):
        def __init__(self, weight: float = 0.5) -> None:
            self.weight = weight

        def fit(self, records, embed=None):
            self.parts = [build("linear", fixed={"alpha": 1.0}).fit(records, embed)]
            self.candidates = records.candidates
            return self

        def predict(self, instructions, candidates):
            return self.weight * self.parts[0].predict(instructions, candidates)

    Ensemble.__module__, Ensemble.__qualname__, mine.Ensemble = "mine", "Ensemble", Ensemble
    router = Ensemble(0.25).fit(records, Embedder("tiny:bert"))
    router.save(tmp_path)
    with pytest.raises(SatlightError, match=r"class_path is 'mine\.Ensemble'; allowed are"):
        Router.from_pretrained(tmp_path)
    loaded = Router.from_pretrained(tmp_path, allow=["mine"])
    assert np.array_equal(loaded.score(new_texts).log_odds_BC, router.score(new_texts).log_odds_BC)


# -- admission ---------------------------------------------------------------------------------------------


def results_of(records, column, rows=None):
    rows = np.flatnonzero(records.known[:, column]) if rows is None else rows
    frame = records.instructions[rows.tolist()]
    return AptitudeResults(
        tuple(frame["instruction_id"]),
        tuple(frame["instruction"]),
        records.outcomes[rows, column],
        tuple(frame["dataset"]),
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in ("knn", "tfidf_knn", "cluster", "uniroute", "inferred_dataset", "linear")),
        *(("cluster", {"nearest": 3}), ("inferred_dataset", {"embed": None, "use": "best"})),
    ],
)
def test_admitting_all_outcomes_is_like_fitting_with_them(name, options, records, new_texts):
    records = replace(records, known=np.ones(records.shape, dtype=bool))
    whole = fitted(name, records, **options).score(new_texts)
    router = fitted(name, records.filter(candidates=NAMES[:2]), **options)
    grown = router.admit(records.candidates[2], results_of(records, 2)).score(new_texts)
    assert grown.candidates == whole.candidates
    # float32 ridge solves one and several columns by other routines
    assert grown.probability_BC == pytest.approx(whole.probability_BC, abs=1e-4 if name == "linear" else 1e-6)


@pytest.mark.parametrize("name", ADMITTED)
def test_admission_changes_nothing_else(name, records, new_texts, tmp_path):
    router = fitted(name, records)
    before = router.score(new_texts)
    results = results_of(records, 1)
    grown = router.admit(Candidate("new"), results)
    after = grown.score(new_texts)
    assert after.candidates == (*NAMES, "new")
    assert after.log_odds_BC[:, :3] == pytest.approx(before.log_odds_BC, abs=1e-6)
    assert np.array_equal(router.score(new_texts).log_odds_BC, before.log_odds_BC)
    assert router.candidates == records.candidates
    again = router.remove("sorts").admit(Candidate("sorts"), results).score(new_texts)  # under the removed name
    assert again.candidates == ("adds", "weak", "sorts")
    assert again.log_odds_BC == pytest.approx(after.log_odds_BC[:, [0, 2, 3]], abs=1e-6)

    order = np.random.default_rng(1).permutation(len(results.outcomes))
    shuffled = AptitudeResults(
        *(tuple(values[i] for i in order) for values in (results.instruction_ids, results.texts)),
        results.outcomes[order],
        tuple(results.datasets[i] for i in order),
    )
    again = router.admit(Candidate("new"), shuffled).score(new_texts)
    assert np.array_equal(again.log_odds_BC, after.log_odds_BC)

    grown.save(tmp_path / "router")
    loaded = Router.from_pretrained(tmp_path / "router")
    assert np.array_equal(loaded.score(new_texts).log_odds_BC, after.log_odds_BC)
    assert loaded.admit(Candidate("newer"), results).model_ids == [*NAMES, "new", "newer"]
    with pytest.raises(SatlightError, match="has a candidate 'new' already"):
        grown.admit(Candidate("new"), results)


@pytest.mark.parametrize("name", [*ADMITTED])
def test_a_good_newcomer_scores_higher_than_a_poor_one(name, records, new_texts):
    """Items that the method was not fitted on, except for aptitude_knn, which reads core items only."""
    router = fitted(name, records)
    texts = [f"sort this list {n + 500}" for n in range(20)] + [f"what is the sum of {n}" for n in range(20)]
    ids = [f"new{n}" for n in range(40)] if name != "aptitude_knn" else router.row_ids[:40]
    for value, other in ((1.0, "good"), (0.0, "poor")):
        results = AptitudeResults(tuple(ids), tuple(texts[: len(ids)]), np.full(len(ids), value, np.float32))
        router = router.admit(Candidate(other), results)
    score = router.score(new_texts, ["good", "poor"]).probability_BC
    assert (score[:, 0] > score[:, 1] + 0.03).all()


def test_learned_map_of_uniroute_admits_too(records, new_texts):
    router = fitted("uniroute", records, map="learned")
    grown = router.admit(Candidate("twin"), results_of(records, 0))
    score = grown.score(new_texts, ["adds", "twin"]).probability_BC
    assert score[:, 1] == pytest.approx(score[:, 0], abs=0.1)  # means of all its rows, not of probe rows


def test_results_on_no_core_item_say_nothing_to_aptitude_knn(records):
    router = fitted("aptitude_knn", records)
    results = AptitudeResults(("gone",), ("text",), np.ones(1, dtype=np.float32))
    with pytest.raises(SatlightError, match=r"on none of the \d+ core instructions"):
        router.admit(Candidate("new"), results)


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name not in ADMITTING])
def test_others_name_the_methods_that_can(name, records):
    with pytest.raises(SatlightError, match=r"cannot admit 'new' without training.*Methods that can: Model-SAT, knn"):
        fitted(name, records, ["x"]).admit(Candidate("new"), results_of(records, 0))


def test_the_ability_is_the_maximum_of_the_posterior():
    """Against a direct search, and with the sign that more right answers mean more ability."""
    rng = np.random.default_rng(0)
    match, difficulty = rng.random((30, 2)), rng.normal(size=30)
    outcome = rng.integers(0, 2, 30).astype(float)
    found = fit_ability(match, difficulty, outcome, variance=0.5)

    def loss(ability):
        logit = match @ ability - difficulty
        return np.logaddexp(0, logit).sum() - outcome @ logit + ability @ ability

    nearby = found + rng.normal(scale=1e-2, size=(200, 2))
    assert all(loss(one) > loss(found) for one in nearby)
    assert fit_ability(match, difficulty, np.ones(30), 0.5).sum() > found.sum()
