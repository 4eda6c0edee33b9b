"""Files for vLLM Semantic Router, read back by small readers of the documented format."""

import json

import numpy as np
import polars as pl
import pytest

from satlight.baselines import vllm_sr
from satlight.baselines.knn import KNN
from satlight.baselines.mlp import MLP
from satlight.cli import main
from satlight.records import PerformanceRecords, open_records, split_records
from satlight.records.folder import save_records
from satlight.types import Candidate


class Selector:
    """Read a model file as a gateway does: check its shapes, choose a name for a feature vector."""

    def __init__(self, path):
        self.content = content = json.loads(path.read_text())
        assert content["trained"] is True
        if content["algorithm"] == "knn":
            assert content["format_version"] in (1, 2)
            lengths = {len(content[key]) for key in ("embeddings", "labels", "qualities", "latencies")}
            assert lengths == {content["num_samples"]}
            assert content["k"] > 0
            assert all(isinstance(value, int) and value >= 0 for value in content["latencies"])
            self.samples = self.unit(np.array(content["embeddings"]))
        else:
            width = content["feature_dim"]
            for layer in content["layers"]:
                if layer["type"] == "linear":
                    assert np.array(layer["weight"]).shape == (layer["out_features"], width)
                    assert len(layer["bias"]) == layer["out_features"]
                    width = layer["out_features"]
                else:
                    assert layer["type"] == "relu"
            assert width == len(content["model_names"]) == content["n_classes"]

    @staticmethod
    def unit(vectors):
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)

    def select(self, query) -> str:
        content = self.content
        if content["algorithm"] == "mlp":
            for layer in content["layers"]:
                if layer["type"] == "relu":
                    query = query.clip(0)
                else:
                    query = np.array(layer["weight"]) @ query + np.array(layer["bias"])
            return content["model_names"][int(query.argmax())]
        distance = ((self.samples - self.unit(query)) ** 2).sum(axis=1)
        votes: dict[str, float] = {}
        for sample in np.argsort(distance, kind="stable")[: content["k"]]:
            speed = 1 / (1 + content["latencies"][sample] / 1e10)
            name = content["labels"][sample]
            votes[name] = votes.get(name, 0.0) + 0.9 * content["qualities"][sample] + 0.1 * speed
        return min(votes, key=lambda name: (-votes[name], name))


NAMES = ("a/one", "b/two", "c/three")


def make_records(share_known: float = 1.0, count: int = 300) -> tuple[PerformanceRecords, np.ndarray]:
    """Return records of specialists in two directions of the vectors, and the vectors."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(count, 6)).astype(np.float32)
    chance = np.stack([vectors[:, 0] > 0, vectors[:, 0] <= 0, vectors[:, 1] > 0.5], axis=1) * 0.8 + 0.1
    outcomes = (rng.random(chance.shape) < chance).astype(np.float32)
    known = rng.random((count, 3)) < share_known
    known[:, 0] = True
    frame = pl.DataFrame(
        {
            "instruction_id": [f"i{n}" for n in range(count)],
            "dataset": ["d"] * count,
            "task": [("math", "Computer_Science", "cooking")[n % 3] for n in range(count)],
            "split": ["test" if n % 5 == 0 else "train" for n in range(count)],
            "instruction": [f"Question {n}" for n in range(count)],
        }
    )
    candidates = tuple(Candidate(name) for name in NAMES)
    return PerformanceRecords(frame, candidates, np.where(known, outcomes, 0), known), vectors


@pytest.fixture
def exported(tmp_path):
    records, vectors = make_records()
    save_records(records, tmp_path / "records")
    np.save(tmp_path / "vectors.npy", vectors)
    main(f"export-vllm-sr {tmp_path}/records --vectors {tmp_path}/vectors.npy --to {tmp_path}/out".split())
    return tmp_path, records, vectors


def test_training_data_has_a_line_per_outcome_without_test_rows(exported):
    folder, records, _ = exported
    lines = [json.loads(line) for line in (folder / "out/training_data.jsonl").read_text().splitlines()]
    assert len(lines) == 240 * 3
    assert {line["category"] for line in lines} == {"math", "computer science", "other"}
    row = records.texts.index(lines[0]["query"])
    column = NAMES.index(lines[0]["model_name"])
    assert lines[0]["performance"] == records.outcomes[row, column]
    assert not {line["query"] for line in lines} & set(records.rows(records.splits == "test").texts)


@pytest.mark.parametrize("name", ["knn", "mlp"])
def test_selectors_choose_as_the_fitted_baselines(exported, name):
    folder, records, vectors = exported
    selector = Selector(folder / f"out/{name}_model.json")
    assert sorted(selector.content["model_names"]) == sorted(NAMES)
    raw = vllm_sr.features(vectors, vllm_sr.categories(records, "task"))
    own = raw / np.linalg.norm(raw, axis=1, keepdims=True) if name == "knn" else raw
    split = records.with_splits(split_records(open_records(str(folder / "records")), seed=0))
    place = {text: row for row, text in enumerate(records.texts)}
    baseline = (KNN if name == "knn" else MLP)(0).fit(
        split.filter(splits=["train", "validation"]), lambda texts: own[[place[text] for text in texts]]
    )
    test = records.splits == "test"
    expected = baseline.predict([t for t, held in zip(records.texts, test, strict=True) if held], list(NAMES))
    chosen = [selector.select(query) for query in raw[test]]
    # Among equal votes, the baseline prefers the better candidate overall, as if by one more neighbor.
    means = records.outcomes[~test].mean(axis=0)
    tie = (means.max() - means.min()) / (baseline.chosen["k"] + 1) if name == "knn" else 0
    gaps = [row.max() - row[NAMES.index(choice)] for row, choice in zip(expected, chosen, strict=True)]
    assert max(gaps) <= tie + 1e-6
    assert np.mean(np.array(gaps) == 0) > 0.9
    outcomes = records.outcomes[test]
    routed = np.mean([outcomes[n, NAMES.index(choice)] for n, choice in enumerate(chosen)])
    assert routed > outcomes.mean(axis=0).max() + 0.1


def test_missing_outcomes_are_no_samples(tmp_path):
    records, vectors = make_records(share_known=0.6)
    rows = records.with_splits(split_records(records, seed=0)).filter(splits=["train", "validation"])
    own = vectors[[records.ids.index(name) for name in rows.ids]]
    categories = vllm_sr.categories(rows, "task")
    knn, mlp = map(Selector, vllm_sr.write_models(rows, own, categories, tmp_path))
    assert len(knn.content["labels"]) == rows.known.sum()
    assert mlp.content["hidden_sizes"] == [3 * 128]  # three candidates on three sets of rows
    raw = vllm_sr.features(own, categories)
    baseline = MLP(0).fit(rows, lambda texts: raw[[rows.texts.index(text) for text in texts]])
    expected = baseline.expected(rows.texts, raw).argmax(axis=1)
    assert [mlp.select(query) for query in raw] == [NAMES[column] for column in expected]


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.zeros((3, 4)), "has the shape (3, 4) for 300 instructions"),
        (np.full((300, 2), np.nan), "values that are not finite"),
        (np.zeros(300), "has the shape (300,)"),
    ],
)
def test_unfit_vectors_are_refused(exported, vectors, message, capsys):
    folder = exported[0]
    np.save(folder / "wrong.npy", vectors)
    with pytest.raises(SystemExit):
        main(["export-vllm-sr", f"{folder}/records", "--vectors", f"{folder}/wrong.npy", "--to", f"{folder}/out"])
    assert message in capsys.readouterr().err


def test_vectors_by_id_and_a_missing_one(exported, capsys):
    folder, records, vectors = exported
    order = np.random.default_rng(1).permutation(300)
    frame = pl.DataFrame({"instruction_id": [records.ids[n] for n in order], "vector": vectors[order].tolist()})
    frame.write_parquet(folder / "vectors.parquet")
    words = ["export-vllm-sr", f"{folder}/records", "--models", "mlp", "--vectors", f"{folder}/vectors.parquet"]
    main([*words, "--to", f"{folder}/again"])
    assert (folder / "again/mlp_model.json").read_text() == (folder / "out/mlp_model.json").read_text()
    frame.head(200).write_parquet(folder / "vectors.parquet")
    with pytest.raises(SystemExit):
        main([*words, "--to", f"{folder}/again"])
    assert "lacks" in capsys.readouterr().err
