"""Sample logs of the LM Evaluation Harness, in the shapes its versions write."""

import json

import pytest

from satlight.errors import SatlightError
from satlight.records.dense import build_records
from satlight.records.sources import lm_eval

SHOTS = "The following are questions about stars.\n\nWhat is a star?\nAnswer: hot\n\n"


def sample(number, prompt, *, filter_="none", options=(" yes", " no"), **metrics):
    doc = {"question": f"Question {number}?", "choices": list(options), "arc": {"text": ["u", "v"], "label": [1, 2]}}
    return {
        "doc_id": number,
        "doc": doc,
        "target": "0",
        "arguments": {f"gen_args_{place}": {"arg_0": prompt, "arg_1": option} for place, option in enumerate(options)},
        "resps": [[["-1.0", "True"]]],
        "filtered_resps": [["-1.0", "True"]],
        "filter": filter_,
        "metrics": list(metrics),
        "doc_hash": f"hash{number}",
        "prompt_hash": "p",
        "target_hash": "t",
        **metrics,
    }


@pytest.fixture
def log_samples(tmp_path):
    def log(model, task, samples, time="2024-06-01T10-00-00.123456"):
        path = tmp_path / "logs" / model / f"samples_{task}_{time}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in samples) + "\n")
        return tmp_path / "logs"

    return log


def test_lm_eval(log_samples, tmp_path):
    asked = [sample(n, f"{SHOTS}Q {n}?\nAnswer:", acc=float(n == 1), acc_norm=1.0, perplexity=[3.0, 1]) for n in (0, 1)]
    log_samples("org__one", "mmlu_astronomy", asked)
    log_samples("two", "mmlu_astronomy", asked[1:])
    solved = [
        sample(0, "1+1?", filter_="strict-match", options=(), exact_match=0.0),
        sample(0, "1+1?", filter_="flexible-extract", options=(), exact_match=1.0),
    ]
    solved = [{**one, "arguments": [["1+1?", {"until": []}]], "metrics": None} for one in solved]  # as in older logs
    folder = log_samples("two", "gsm8k", solved)
    groups = {"mmlu": ["mmlu_stem"], "mmlu_stem": ["mmlu_astronomy"], "leaderboard": ["gsm8k"], "gsm8k": []}
    results = {"model_name": "org/two-chat", "group_subtasks": groups}
    (folder / "two" / "results_2024-06-01T10-00-00.1.json").write_text(json.dumps(results))
    (folder / "org__one" / "results_2024-06-01T10-00-00.1.json").write_text(json.dumps({"group_subtasks": groups}))

    tables = lm_eval.tables(folder)
    records = build_records(tables)
    assert records.model_ids == ["org/one", "org/two-chat"]
    assert records.instructions["instruction_id"].to_list() == ["mmlu_astronomy-0", "mmlu_astronomy-1", "gsm8k-0"]
    assert records.datasets.tolist() == ["mmlu", "mmlu", "gsm8k"]
    assert records.tasks.tolist() == ["mmlu_astronomy", "mmlu_astronomy", "gsm8k"]
    assert records.texts == ["Q 0?\nAnswer:", "Q 1?\nAnswer:", "1+1?"]  # worked examples are gone
    assert records.instructions["choices"].to_list() == [["yes", "no"], ["yes", "no"], None]
    assert records.known.tolist() == [[True, False], [True, True], [False, True]]
    assert records.outcomes.tolist() == [[0.0, 0.0], [1.0, 1.0], [0.0, 1.0]]
    assert set(tables.score_columns()) == {
        "score",
        "acc",
        "acc_norm",
        "exact_match,strict-match",
        "exact_match,flexible-extract",
    }
    assert tables.notes == ("score is acc for mmlu_astronomy.", "score is exact_match,flexible-extract for gsm8k.")
    strict = lm_eval.read(folder, metrics=["exact_match,strict-match", "acc_norm"])
    assert strict.outcomes.tolist() == [[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]


def test_lm_eval_takes_one_folder_and_the_latest_log(log_samples):
    log_samples("m", "boolq", [sample(0, "old", acc=0)], time="2024-01-01T00-00-00")
    folder = log_samples("m", "boolq", [sample(0, "new", acc=True)], time="2024-02-01T00-00-00")
    tables = lm_eval.tables(folder / "m")
    records = build_records(tables)
    assert (records.texts, records.outcomes.tolist()) == (["new"], [[1.0]])
    assert "1 older logs of the same candidate and task were ignored." in tables.notes


def test_lm_eval_drops_questions_that_differ(log_samples):
    log_samples("a", "t", [sample(0, "p", acc=1), sample(1, "q", acc=1)])
    folder = log_samples("b", "t", [sample(0, "p", acc=1), {**sample(1, "q", acc=1), "doc_hash": "other"}])
    tables = lm_eval.tables(folder)
    assert build_records(tables).texts == ["p"]
    assert "1 questions that differ between candidates were dropped." in tables.notes
    with pytest.raises(SatlightError, match=r"No question .* is the same for all candidates"):
        lm_eval.read(log_samples("b", "t", [{**sample(n, "q", acc=1), "doc_hash": "z"} for n in (0, 1)]))


def test_lm_eval_text_fields(log_samples):
    folder = log_samples("a", "t", [sample(0, "p", acc=1)])
    records = lm_eval.read(folder, text_fields=["question", "arc", "choices"])
    assert records.texts == ["Question 0?\nA. u\nB. v\nA.  yes\nB.  no"]
    with pytest.raises(SatlightError, match=r"doc 0 has no field 'query'\. It has 'question', 'choices', 'arc'\."):
        lm_eval.read(folder, text_fields=["query"])


@pytest.mark.parametrize(
    "prompt",
    [
        '[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}]',
        ['[{"role": "user", "content": "1+1?"}]'],
        [{"role": "user", "content": [{"type": "text", "text": "1+1?"}]}],
    ],
)
def test_lm_eval_conversations(log_samples, prompt):
    assert lm_eval.read(log_samples("a", "t", [sample(0, prompt, acc=1)])).texts == ["1+1?"]


def test_mistakes_in_lm_eval(log_samples, tmp_path):
    (tmp_path / "logs").mkdir()
    with pytest.raises(SatlightError, match=r"holds no samples_\*\.jsonl\. Run lm_eval with --log_samples"):
        lm_eval.read(tmp_path / "logs")
    with pytest.raises(SatlightError, match=r"line 2: is not a sample of the harness \(JSONDecodeError"):
        lm_eval.read(log_samples("a", "t", [sample(0, "p", acc=1), "{broken"]))
    with pytest.raises(SatlightError, match=r"line 1: is not a sample of the harness \(KeyError: 'doc_id'"):
        lm_eval.read(log_samples("a", "t", ['{"doc": 1}']))
    with pytest.raises(SatlightError, match="line 2: doc_id 0 was logged before"):
        lm_eval.read(log_samples("a", "t", [sample(0, "p", acc=1), sample(0, "p", acc=1)]))
    with pytest.raises(SatlightError, match="no metric lies between 0 and 1, so the task 't'"):
        lm_eval.read(log_samples("a", "t", [sample(0, "p", word_perplexity=12.5)]))
    folder = log_samples("a", "t", [sample(0, "p", acc=1)])
    with pytest.raises(SatlightError, match=r"none of the metrics 'f1' in all its logs\. Available: 'acc'"):
        lm_eval.read(folder, metrics=["f1"])


def test_lm_eval_takes_what_there_is_but_not_nan(log_samples):
    folder = log_samples("a", "t", [sample(0, "p", f1=float("nan")), sample(1, "q", f1=0.25)])
    records = lm_eval.read(folder)
    assert records.outcomes.tolist() == [[0.0], [0.25]]
    assert records.known.tolist() == [[False], [True]]
