"""``satlight calibrate`` and ``satlight zoo`` on a fitted baseline, and the rule in the router folder."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from satlight import Router
from satlight.baselines import build
from satlight.cli import main
from satlight.records import PerformanceRecords, open_records, save_records
from satlight.types import Candidate

KINDS = ("sum", "poem", "proof")
SKILL = {"small": (0.95, 0.5, 0.1), "medium": (0.95, 0.9, 0.5), "large": (0.95, 0.92, 0.9)}
COST = {"small": 0.0001, "medium": 0.001, "large": 0.01}


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    """A log of three kinds of instructions and three candidates, which cost ten times as much each."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, 600)
    rows = pl.DataFrame(
        {
            "instruction_id": [str(i) for i in range(600)],
            "dataset": "log",
            "task": "log",
            "split": rng.permutation(["train"] * 300 + ["validation"] * 200 + ["test"] * 100),
            "instruction": [f"Write a {KINDS[k]} about the number {i}" for i, k in enumerate(kind)],
        }
    )
    skill = np.array(list(SKILL.values())).T[kind]
    outcomes = (rng.random(skill.shape) < skill).astype(np.float32)
    costs = (np.array(list(COST.values())) * rng.uniform(0.8, 1.2, skill.shape)).astype(np.float32)
    zoo = tuple(Candidate(name) for name in SKILL)
    records = PerformanceRecords(rows, zoo, outcomes, np.ones_like(outcomes, dtype=bool), costs=costs, name="log")
    folder = tmp_path_factory.mktemp("log") / "log"
    save_records(records, folder)
    return folder


@pytest.fixture(scope="module")
def fitted(log, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fitted") / "router"
    build("tfidf_knn", fixed={"k": 20}).fit(open_records(log).filter(splits=["train"])).save(folder)
    return folder


@pytest.fixture
def folder(fitted, tmp_path) -> Path:
    return Path(shutil.copytree(fitted, tmp_path / "router"))


@pytest.fixture
def cli(capsys, monkeypatch):
    """Run a command; return its exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "120")

    def cli(*words):
        code = None
        try:
            main([str(word) for word in words])
        except SystemExit as error:
            code = error.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return cli


def test_a_target_is_fitted_measured_and_saved(cli, log, folder, contents):
    before = Router.from_pretrained(folder)
    weights = contents(folder)["router.safetensors"]
    code, out, err = cli("calibrate", folder, "--records", log, "--target", "0.9")
    assert (code, err) == (None, "")
    assert "cheapest@0.9 on 200 rows of log" in out
    router = Router.from_pretrained(folder)
    assert router.rule.text == "cheapest@0.9"
    about = router.about["rule"]
    _, low, high = about["quality"]
    assert low <= 0.9 <= high
    assert about["cost_usd"][0] < 0.8 * COST["large"]
    assert sum(about["shares"].values()) == pytest.approx(1)
    # Costs are those of the log's train rows; the scores are as before.
    assert [one.cost_usd for one in router.candidates] == pytest.approx(list(COST.values()), rel=0.05)
    assert (router.score(["Write a sum"]).log_odds_BC == before.score(["Write a sum"]).log_odds_BC).all()
    assert contents(folder)["router.safetensors"] == weights
    # The figures can be checked by hand from the folder: the choices on validation rows.
    held = open_records(log).filter(splits=["validation"])
    chosen = [held.model_ids.index(ranking.best) for ranking in router.route(held.requests())]
    assert held.outcomes[np.arange(200), chosen].mean() >= 0.9
    assert np.bincount(chosen, minlength=3) / 200 == pytest.approx(list(about["shares"].values()))
    # Saving again changes nothing.
    written = contents(folder)
    router.save(folder)
    assert contents(folder) == written


def test_route_uses_the_saved_rule_or_another_one(cli, log, folder):
    cli("calibrate", folder, "--records", log, "--budget", "0.002")

    def route(*words):
        code, out, err = cli("route", "--router", folder, "--format", "json", *words, "Write a proof about 7")
        return json.loads(out) if code is None else err

    saved = route()
    assert saved["rule"] == "budget@0.002"
    assert saved["ranking"][0].keys() == {"model_id", "probability", "score", "cost_usd"}
    assert route("--rule", "budget@0.002") == saved  # with the fitted threshold
    assert route("--rule", "best")["route"] == "large"
    assert route("--rule", "cheapest@0.05")["route"] == "small"
    assert route("--rule", "utility@1e6")["route"] == "small"
    assert "satlight calibrate DIR --budget 0.003" in route("--rule", "budget@0.003")
    assert "is no decision rule" in route("--rule", "cheap")
    _, out, _ = cli("route", "--router", folder, "--format", "table", "Write a proof about 7")
    assert "rule: budget@0.002" in out
    assert "$ / 1000" in out


def test_the_temperature_is_fitted_too_and_utility_is_measured(cli, log, folder):
    code, out, _ = cli("calibrate", folder, "--records", log, "--utility", "10", "--temperature")
    assert code is None
    assert "utility@10 on 200 rows" in out
    router = Router.from_pretrained(folder)
    assert router.calibration.temperature != 1
    assert router.rule.text == "utility@10"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--target", "0.99"], "The target 0.99 cannot be reached on the 200 validation rows: the best is 0.9"),
        (["--budget", "0.00001"], "the least that this zoo can cost is 9.93e-05"),
        (["--target", "90"], "is 90.0; it is a probability"),
        (["--target", "0.9", "--split", "all", "--folds", "1"], "got 1 folds; there must be 2 or more"),
    ],
)
def test_what_cannot_be_fitted_is_an_error_and_writes_nothing(cli, log, folder, contents, words, message):
    before = contents(folder)
    code, _, err = cli("calibrate", folder, "--records", log, *words)
    assert code == 1
    assert message in err
    assert contents(folder) == before


def test_rows_that_the_router_learned_from_are_refused(cli, log, tmp_path):
    build("tfidf_knn").fit(open_records(log).filter(splits=["train", "validation"])).save(tmp_path / "all")
    code, _, err = cli("calibrate", tmp_path / "all", "--records", log, "--target", "0.9")
    assert code == 1
    assert "has learned from these very rows" in err
    code, _, err = cli("calibrate", tmp_path / "all", "--target", "0.9")
    assert "give them with --records" in err


def test_a_missing_price_names_candidate_and_command(cli, log, folder, tmp_path):
    code, _, err = cli("route", "--router", folder, "--rule", "cheapest@0.9", "Hi")
    assert code == 1
    assert "that of 'small' is unknown" in err
    assert "satlight zoo set-price" in err
    # Following the message helps.
    for name, cost in COST.items():
        assert cli("zoo", "set-price", folder, name, "--cost-usd", cost)[0] is None
    assert cli("route", "--router", folder, "--rule", "cheapest@0.9", "Hi")[0] is None


def test_token_counts_of_the_log_are_read(cli, log, folder, tmp_path):
    counted = Path(shutil.copytree(log, tmp_path / "counted"))
    table = pl.read_parquet(counted / "records.parquet")
    tokens = pl.col("model_id").replace_strict({"small": 10, "medium": 20, "large": 30})
    table.with_columns(tokens_out=tokens).write_parquet(counted / "records.parquet")
    for name in SKILL:
        cli("zoo", "set-price", folder, name, "--price-in", "0", "--price-out", "2")
    assert cli("calibrate", folder, "--records", counted, "--best")[0] is None
    assert [one.tokens_out for one in Router.from_pretrained(folder).candidates] == [10, 20, 30]


# -- zoo ---------------------------------------------------------------------------------------------------


def test_zoo_lists_shows_and_prices(cli, folder, contents):
    before = contents(folder)
    assert (
        cli("zoo", "set-price", folder, "medium", "--price-in", "1.5", "--price-out", "6", "--tokens-out", "80")[0]
        is None
    )
    listed = json.loads(cli("zoo", "list", folder, "--json")[1])
    assert [one["model_id"] for one in listed] == list(SKILL)
    assert (listed[1]["price_in"], listed[1]["price_out"], listed[1]["tokens_out"]) == (1.5, 6, 80)
    out = cli("zoo", "list", folder)[1]
    assert "medium" in out
    assert "1.5" in out
    assert json.loads(cli("zoo", "show", folder, "medium")[1])["price_out"] == 6
    changed = {name for name, content in contents(folder).items() if before[name] != content}
    assert changed == {"zoo.json"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["set-price", "DIR", "small"], "at least one of --price-in"),
        (["set-price", "DIR", "small", "--price-in", "-1"], "price_in -1.0; it must be a number 0 (free) or more"),
        (["set-price", "DIR", "tiny", "--price-in", "1"], "does not know the candidate 'tiny'; its zoo is small"),
        (["show", "DIR", "tiny"], "does not know the candidate 'tiny'"),
        (["remove", "DIR", "tiny"], "does not know the candidates ['tiny']"),
        (["rename", "DIR", "small", "large"], "a text that no candidate has"),
        (["list", "nowhere"], "does not exist or is no folder"),
    ],
)
def test_mistakes_are_named_and_change_nothing(cli, folder, contents, words, message):
    before = contents(folder)
    code, _, err = cli("zoo", *[folder if word == "DIR" else word for word in words])
    assert code == 1
    assert message in err
    assert contents(folder) == before


def test_removing_and_renaming_keep_the_other_scores(cli, folder):
    texts = ["Write a sum about 1", "Write a poem about 2"]
    before = Router.from_pretrained(folder).score(texts).log_odds_BC
    assert cli("zoo", "remove", folder, "small")[0] is None
    assert cli("zoo", "rename", folder, "large", "small")[0] is None  # a removed name is free again
    router = Router.from_pretrained(folder)
    assert router.model_ids == ["medium", "small"]
    assert (router.score(texts).log_odds_BC == before[:, 1:]).all()
    assert (router.score(texts, ["small"]).log_odds_BC == before[:, 2:]).all()
    assert cli("zoo", "remove", folder, "medium")[0] is None
    assert "is the only candidate" in cli("zoo", "remove", folder, "small")[2]


def test_a_model_sat_router_loses_a_candidate(cli, router, router_folder, tmp_path):
    mine = Path(shutil.copytree(router_folder, tmp_path / "mine"))
    assert json.loads(cli("zoo", "show", mine, "org/good-7b")[1])["capability"]["results"][0]["task"] == "sums"
    assert cli("zoo", "remove", mine, "org/poor-1b")[0] is None
    assert cli("zoo", "rename", mine, "other/odd", "new")[0] is None
    left = Router.from_pretrained(mine)
    assert left.model_ids == ["org/good-7b", "new"]
    expected = router.score(["Hi", "What is 2 + 2?"], ["org/good-7b", "other/odd"]).log_odds_BC
    # Other candidates in the block change the last digits of float32 sums on several threads.
    assert np.allclose(left.score(["Hi", "What is 2 + 2?"]).log_odds_BC, expected, atol=1e-5)


def test_a_run_calibrates_its_router_on_its_own_validation_rows(cli, run, tmp_path):
    mine = Path(shutil.copytree(run, tmp_path / "mine"))
    code, out, err = cli("calibrate", mine / "router", "--best", "--temperature")
    assert code is None, err
    router = Router.from_pretrained(mine / "router")
    assert router.about["rule"]["data"]["simulated"]
    assert f"best on {router.about['rule']['rows']} rows of simulated" in out
