"""Zoo settings: who is in, who is missing, and every preset that comes with satlight."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from satlight.errors import SatlightError
from satlight.records import PerformanceRecords
from satlight.records.tables import check_candidates, read_json
from satlight.records.zoo import ZooSetting, load_setting
from satlight.types import Candidate

ROOT = Path(__file__).parents[2]
PRESETS = sorted((ROOT / "configs" / "zoo").glob("*.yaml"))

ZOO = [
    Candidate("org/One-7B", params_b=7, release_date="2023-09", open_weights=True, price_in=0.1),
    Candidate("other/two-70b", params_b=70, release_date="2024-04-18", open_weights=True, price_in=0.9),
    Candidate("three-8b", params_b=8, release_date="2024-04", open_weights=True, price_in=0.2),
    Candidate("api-large", release_date="2024-05", open_weights=False, price_in=5.0),
]
NAMES = [candidate.model_id for candidate in ZOO]


def setting(**content: object) -> ZooSetting:
    return ZooSetting.from_dict({"name": "mine", **content}, "mine.yaml")


def records_of(candidates: list[Candidate], known: np.ndarray | None = None) -> PerformanceRecords:
    rows = pl.DataFrame({"instruction_id": ["a", "b"], "dataset": "d", "task": "t", "split": "train"})
    shape = (2, len(candidates))
    return PerformanceRecords(
        rows.with_columns(instruction=pl.col("instruction_id")),
        tuple(candidates),
        np.zeros(shape, dtype=np.float32),
        np.ones(shape, dtype=bool) if known is None else known,
    )


# -- members -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (["org/One-7B"], ["org/One-7B"]),
        (["one-7b"], ["org/One-7B"]),  # neither institute nor capitals count
        (["ORG/one-7b"], ["org/One-7B"]),
        (["anyone/three-8b"], ["three-8b"]),  # the records name no institute
        (["three-8b", "TWO-70B"], ["other/two-70b", "three-8b"]),  # in the order of the records
        (["*b"], ["org/One-7B", "other/two-70b", "three-8b"]),
        (["o*/*"], ["org/One-7B", "other/two-70b"]),
        ([["one-7b-chat", "one-7b"]], ["org/One-7B"]),
    ],
)
def test_members_are_found(wanted, found):
    assert setting(candidates=wanted).names(ZOO) == found


@pytest.mark.parametrize("wanted", ["one", "one-7", "one-7b-chat", "else/one-7b", "org/*70b"])
def test_nearly_is_not_enough(wanted):
    with pytest.raises(SatlightError, match=r"1 of the 1 members .* missing"):
        setting(candidates=[wanted]).names(ZOO)


def test_all_missing_members_are_listed():
    with pytest.raises(SatlightError) as error:
        setting(candidates=["four-9b", "one-7b", ["five", "five-chat"]]).select(records_of(ZOO))
    assert "2 of the 3 members" in str(error.value)
    assert "'four-9b', 'five or five-chat'" in str(error.value)
    assert "There are: 'org/One-7B', 'other/two-70b'" in str(error.value)


@pytest.mark.parametrize("wanted", ["one-7b", ["one-7b", "x/one-7b"]])
def test_an_ambiguous_member_is_refused(wanted):
    zoo = [*ZOO, Candidate("copy/one-7b")]
    with pytest.raises(SatlightError, match=r"have 'org/One-7B', 'copy/one-7b'\. Write the full name"):
        setting(candidates=[wanted]).names(zoo)
    assert setting(candidates=["copy/one-7b"]).names(zoo) == ["copy/one-7b"]


def test_an_exact_name_goes_before_a_likeness():
    assert setting(candidates=["one-7b"]).names([*ZOO, Candidate("one-7b")]) == ["one-7b"]


def test_a_name_that_looks_like_a_pattern():
    zoo = [Candidate("a[b]"), Candidate("ab")]
    assert setting(candidates=["a[b]"]).names(zoo) == ["a[b]"]


# -- limits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "found"),
    [
        ({}, NAMES),
        ({"open_weights": True}, NAMES[:3]),
        ({"open_weights": False}, ["api-large"]),
        ({"open_weights": True, "max_params_b": 8}, ["org/One-7B", "three-8b"]),  # the bound is in
        ({"open_weights": True, "min_params_b": 8}, ["other/two-70b", "three-8b"]),
        ({"released_after": "2024-04"}, ["other/two-70b", "three-8b", "api-large"]),
        ({"released_before": "2024-04"}, NAMES[:3]),  # a whole month, whatever the day
        ({"released_before": "2023-12"}, ["org/One-7B"]),
        ({"max_price_in": 0.2}, ["org/One-7B", "three-8b"]),
        ({"candidates": ["*-7*"], "max_price_in": 0.2}, ["org/One-7B"]),
    ],
)
def test_limits(limits, found):
    assert setting(**limits).names(ZOO) == found


def test_what_is_unknown_is_neither_in_nor_out():
    with pytest.raises(SatlightError, match="limits max_params_b, which is unknown of 'api-large'"):
        setting(max_params_b=10).names(ZOO)
    with pytest.raises(SatlightError, match="limits max_price_out, which is unknown of 'org/One-7B', 'other"):
        setting(max_price_out=1).names(ZOO)


def test_nobody_left():
    with pytest.raises(SatlightError, match="leaves none of the 4 candidates of the records 'records'"):
        setting(open_weights=True, min_params_b=100).select(records_of(ZOO))


# -- records -----------------------------------------------------------------------------------------------


def test_select_keeps_rows_and_cells():
    records = records_of(ZOO)
    records.outcomes[1, 2] = 0.5
    selected = setting(candidates=["three-8b", "one-7b"]).select(records)
    assert selected.model_ids == ["org/One-7B", "three-8b"]
    assert selected.outcomes.tolist() == [[0, 0], [0, 0.5]]


def test_a_member_without_an_outcome_is_named():
    known = np.ones((2, 4), dtype=bool)
    known[:, 2] = False
    with pytest.raises(SatlightError, match=r"'mine' of .* no record for the candidate 'three-8b'"):
        setting(candidates=["one-7b", "three-8b"]).select(records_of(ZOO, known))
    assert setting(candidates=["one-7b"]).select(records_of(ZOO, known)).shape == (2, 1)


# -- files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: mine\nmax_param_b: 7", "unknown key 'max_param_b'. Did you mean 'max_params_b'"),
        ("max_params_b: 7", "got name None"),
        ("- one", "a mapping with the keys 'name', 'candidates'"),
        ("name: mine\ncandidates: []", r"got candidates \[\]"),
        ("name: mine\ncandidates: one-7b", "got candidates 'one-7b'"),
        ("name: mine\ncandidates: [[a, 7]]", "got candidates"),
        ("name: mine\nmax_params_b: '7'", "got max_params_b '7'"),
        ("name: mine\nmin_params_b: true", "got min_params_b True"),
        ("name: mine\nreleased_after: 2024", "got released_after 2024; write YYYY-MM"),
        ("name: mine\nopen_weights: 1", "got open_weights 1"),
        ("name: [", "not valid YAML"),
    ],
)
def test_a_wrong_file_is_refused(text, message, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(SatlightError, match=message):
        load_setting(tmp_path / "mine.yaml")


def test_a_file_of_ones_own(tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\nreleased_after: 2024-04-01\nopen_weights: true\n")
    assert load_setting(tmp_path / "mine.yaml").names(ZOO) == ["other/two-70b", "three-8b"]
    with pytest.raises(SatlightError, match=r"other\.yaml cannot be read"):
        load_setting(tmp_path / "other.yaml")


def test_a_preset_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # found beside the source
    assert load_setting("smaller-scale").name == "smaller-scale"
    own = tmp_path / "configs" / "zoo"
    own.mkdir(parents=True)
    (own / "smaller_scale.yaml").write_text("name: smaller-scale\nmax_params_b: 3\n")
    assert load_setting("smaller-scale").max_params_b == 3
    with pytest.raises(SatlightError, match=r"There is no zoo setting 'smallest'.* 'smaller-scale'"):
        load_setting("smallest")


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_presets_are_read_by_their_name(path):
    name = yaml.safe_load(path.read_text())["name"]
    assert name == path.stem.replace("_", "-")
    assert load_setting(path) == load_setting(name)


def preset(name: str) -> set:
    members = load_setting(name).members
    assert members is not None
    assert len(set(members)) == len(members)
    return set(members)


def test_the_papers_zoos_contain_each_other():
    smaller, middle, larger = preset("smaller-scale"), preset("middle-mixed"), preset("larger-mixed")
    sizes = [len(preset(name)) for name in ("smaller-scale", "smaller-mixed", "middle-mixed", "larger-mixed")]
    assert sizes == [5, 8, 7, 10]
    assert smaller < preset("smaller-mixed")
    assert smaller < middle < larger
    assert larger - middle == preset("high-performance")
    assert len(preset("multimodal")) == 3


def test_the_papers_zoo_in_hub_names():
    hub = [
        "internlm/internlm2_5-7b-chat",
        "meta-llama/Meta-Llama-3-8B-Instruct",
        "Qwen/Qwen2-7B-Instruct",
        "THUDM/glm-4-9b-chat",
        "microsoft/Phi-3-small-128k-instruct",
    ]
    zoo = [Candidate(name) for name in ["meta-llama/Meta-Llama-3-8B", *hub]]
    assert load_setting("smaller-scale").names(zoo) == hub


SIZES = {"a": 1.3, "b": 6.9, "c": 7, "d": 10, "e": 14, "f": 40, "g": 70}


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("size-smaller-scale", "cd"),
        ("size-smaller-mixed", "abcd"),
        ("size-middle-mixed", "cdef"),
        ("size-larger-mixed", "cdefg"),
        ("size-high-performance", "fg"),
    ],
)
def test_sizes(name, members):
    zoo = [Candidate(model_id, params_b=size) for model_id, size in SIZES.items()]
    assert load_setting(name).names(zoo) == list(members)


def test_sizes_of_the_benchmarks_as_documented():
    """The table of docs/protocols.md."""
    data = ROOT.parent / "shared" / "data"
    if not data.is_dir():
        pytest.skip("no benchmark data here")
    zoos = {
        name: check_candidates(read_json(data / folder / "models.json", ""), folder)
        for name, folder in (("MMLU-Pro", "mmlu_pro"), ("RouterDC", "routerdc"))
    }
    page = (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (size-[\w-]+) \| [^|]+ \| (\w+) \| (\w+) \|$", page, flags=re.MULTILINE)
    assert len(rows) == 5
    for name, *counts in rows:
        for zoo, count in zip(zoos.values(), counts, strict=True):
            if count == "none":
                with pytest.raises(SatlightError, match="leaves none"):
                    load_setting(name).names(zoo)
            else:
                assert len(load_setting(name).names(zoo)) == int(count)
