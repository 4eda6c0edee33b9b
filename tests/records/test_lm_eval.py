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
    with pytest.raises(SatlightError, match=r"line 2: not valid JSON"):
        lm_eval.read(log_samples("a", "t", [sample(0, "p", acc=1), "{broken"]))
    with pytest.raises(
        SatlightError, match=r"line 1: is not a sample of the harness: got 'doc', not an object with a 'doc_id'"
    ):
        lm_eval.read(log_samples("a", "t", ['{"doc": 1}']))
    with pytest.raises(SatlightError, match="line 2: doc_id 0 was logged before"):
        lm_eval.read(log_samples("a", "t", [sample(0, "p", acc=1), sample(0, "p", acc=1)]))
    with pytest.raises(
        SatlightError,
        match=r"t of 'a' was skipped: none of its metrics is a number from 0 to 1: word_perplexity \(12\.5 in line 1\)",
    ):
        lm_eval.read(log_samples("a", "t", [sample(0, "p", word_perplexity=12.5)]))
    folder = log_samples("a", "t", [sample(0, "p", acc=1)])
    with pytest.raises(SatlightError, match=r"none of the metrics 'f1' in all its logs\. Available: 'acc'"):
        lm_eval.read(folder, metrics=["f1"])


def test_lm_eval_takes_what_there_is_but_not_nan(log_samples):
    folder = log_samples("a", "t", [sample(0, "p", f1=float("nan")), sample(1, "q", f1=0.25)])
    records = lm_eval.read(folder)
    assert records.outcomes.tolist() == [[0.0], [0.25]]
    assert records.known.tolist() == [[False], [True]]


# --- facts of the results files ---


@pytest.fixture
def results(tmp_path):
    def write(place, **content):
        path = tmp_path / "logs" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))

    return write


TIME = "2024-06-01T10-00-00.123456"


@pytest.mark.parametrize("stated", [True, False])
def test_lower_is_better(log_samples, results, stated):
    name = "toxicity" if stated else "pct_stereotype"
    for model, value in (("good", 0.25), ("bad", 0.75)):
        folder = log_samples(model, "t", [sample(0, "p", **{name: value})])
        if stated:
            results(f"{model}/results_{TIME}.json", model_name=model, higher_is_better={"t": {name: False}})
    tables = lm_eval.tables(folder)
    records = build_records(tables)
    assert dict(zip(records.model_ids, records.outcomes[0].tolist(), strict=True)) == {"good": 0.75, "bad": 0.25}
    assert f"Lower {name} is better, so the column is 1 - value for t." in tables.notes


def test_metrics_of_which_more_is_better_come_first(log_samples):
    folder = log_samples("a", "t", [sample(0, "p", brier_score=0.25, f1=1.0)])
    assert "score is f1 for t." in lm_eval.tables(folder).notes


def test_directions_must_agree(log_samples, results):
    for model, higher in (("a", True), ("b", False)):
        folder = log_samples(model, "t", [sample(0, "p", x=0.5)])
        results(
            f"{model}/results_{TIME}.json",
            configs={"t": {"metric_list": [{"metric": "x", "higher_is_better": higher}]}},
        )
    with pytest.raises(SatlightError, match="disagree on whether a high x is good"):
        lm_eval.tables(folder)


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"higher_is_better": [1]},
        {"higher_is_better": {"t": {"acc": "yes"}}},
        {"group_subtasks": {"t": "x"}},
        {"configs": 1},
    ],
)
def test_results_of_another_shape(log_samples, tmp_path, content):
    folder = log_samples("a", "t", [sample(0, "p", acc=1)])
    (folder / "a" / f"results_{TIME}.json").write_text(json.dumps(content))
    with pytest.raises(SatlightError, match=rf"results_{TIME}\.json"):
        lm_eval.tables(folder)


def test_one_output_file_for_two_models(log_samples, results):
    """``--output_path FILE.json`` writes the logs of all models to one folder."""
    for number, model in enumerate(("org/one", "org/two")):
        time = f"2024-0{number + 1}-01T10-00-00.5"
        log_samples(".", "t", [sample(0, "p", acc=number)], time=time)
        results(f"out_{time}.json", model_name=model)
    folder = log_samples(".", "t", [sample(0, "p", acc=1)], time="2024-05-01T10-00-00.5")
    results("out_2024-05-01T10-00-00.5.json", config={"model_args": "pretrained=org/three,dtype=float16"})
    records = lm_eval.read(folder)
    assert records.model_ids == ["org/one", "org/three", "org/two"]
    assert records.outcomes.tolist() == [[0.0, 1.0, 1.0]]


def test_a_log_without_its_results_next_to_those_of_two_models(log_samples, results):
    folder = log_samples(".", "t", [sample(0, "p", acc=1)])
    for model in ("one", "two"):
        results(f"results_{model}.json", model_name=model)
    with pytest.raises(SatlightError, match="has results of 'one', 'two'"):
        lm_eval.read(folder)


@pytest.mark.parametrize("known", [True, False])
def test_a_limited_log_does_not_replace_a_complete_one(log_samples, results, known):
    log_samples("m", "t", [sample(n, f"p{n}", acc=1) for n in range(3)], time="2024-01-01")
    folder = log_samples("m", "t", [sample(n, f"p{n}", acc=0) for n in range(2)], time="2024-02-01")
    if known:
        results("m/results_2024-01-01.json", model_name="m")
        results(
            "m/results_2024-02-01.json",
            model_name="m",
            config={"limit": 2},
            **{"n-samples": {"t": {"original": 3, "effective": 2}}},
        )
    tables = lm_eval.tables(folder)
    assert build_records(tables).outcomes.tolist() == [[1.0]] * 3
    assert "1 later logs with fewer questions (--limit) were ignored." in tables.notes


def test_a_limited_log_alone_is_used_and_said(log_samples, results):
    folder = log_samples("m", "t", [sample(0, "p", acc=1)])
    results(f"m/results_{TIME}.json", model_name="m", **{"n-samples": {"t": {"original": 3, "effective": 1}}})
    assert "t of 'm' has 1 of 3 questions (--limit)." in lm_eval.tables(folder).notes


# --- folders ---


def test_links_to_folders_are_followed(log_samples, tmp_path):
    folder = log_samples("one", "t", [sample(0, "p", acc=1)])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / "one").rename(elsewhere / "run7")
    (folder / "org__two").symlink_to(elsewhere / "run7")
    log_samples("three", "t", [sample(0, "p", acc=0)])
    (folder / "three" / "circle").symlink_to(folder)
    assert lm_eval.read(folder).model_ids == ["org/two", "three"]


def test_one_name_in_two_folders(log_samples, results):
    for run, task in (("run1", "s"), ("run2", "t")):
        folder = log_samples(run, task, [sample(0, "p", acc=1)])
        results(f"{run}/results_{TIME}.json", model_name="m")
    tables = lm_eval.tables(folder)
    assert build_records(tables).shape == (2, 1)
    assert any("'m' has logs of different tasks in 2 folders, taken as one candidate" in note for note in tables.notes)
    log_samples("run2", "s", [sample(0, "p", acc=0)])
    with pytest.raises(SatlightError, match=r"'m' has logs of the task 's' in several folders: '.*run1', '.*run2'"):
        lm_eval.tables(folder)


# --- the instruction ---


def test_worked_examples_that_are_other_test_questions(log_samples, results):
    texts = [f"A question about the number {n}, which is long enough" for n in range(4)]
    asked = []
    for n, text in enumerate(texts):
        prompt = f"Q: {texts[n - 1]}\nA: {n}\n\nQ: {text}\n\nThink.\nA:"
        asked.append({**sample(n, prompt, acc=1), "doc": {"question": text, "subject": "number"}})
    folder = log_samples("m", "t", asked)
    assert lm_eval.read(folder).texts == [f"Q: {text}\n\nThink.\nA:" for text in texts]  # by the entry
    folder = log_samples("m", "t", [{**one, "doc": {"id": 1}} for one in asked])
    results(f"m/results_{TIME}.json", model_name="m", **{"n-shot": {"t": 1}})
    tables = lm_eval.tables(folder)
    assert tables.instructions["instruction"][0] == "Think.\nA:"
    assert any("4 questions of t is the last paragraph of the prompt" in note for note in tables.notes)


def test_worked_examples_in_a_chat_template(log_samples):
    text = "<|im_start|>user\nWhat is the capital of {}?<|im_end|>\n<|im_start|>assistant\n"
    places = ["France", "Italy", "Spain"]
    asked = [
        {
            **sample(n, text.format(places[n - 1]) + "It is X.<|im_end|>\n" + text.format(place), acc=1),
            "doc": {"question": f"What is the capital of {place}?"},
        }
        for n, place in enumerate(places)
    ]
    assert lm_eval.read(log_samples("m", "t", asked)).texts == [f"What is the capital of {place}?" for place in places]


def test_text_fields_per_task(log_samples):
    log_samples("a", "boolq", [{**sample(0, "p", acc=1), "doc": {"passage": "Long.", "question": "Why?"}}])
    folder = log_samples("a", "arc_easy", [sample(0, "p", acc=1)])
    fields = ["boolq:passage", "boolq:question", "question"]
    assert lm_eval.read(folder, text_fields=fields).texts == ["Question 0?", "Long.\nWhy?"]
    with pytest.raises(SatlightError, match=r"--text-field nil:x: no such task\. Available: 'arc_easy', 'boolq'"):
        lm_eval.read(folder, text_fields=["nil:x"])


# --- shapes of other versions ---


def test_two_filters_of_2024_without_their_names(log_samples, results):
    lines = [sample(n, "p", exact_match=float(k == n)) for k in range(2) for n in range(2)]
    lines = [{key: value for key, value in line.items() if key not in ("filter", "metrics")} for line in lines]
    folder = log_samples("m", "gsm8k", lines)
    assert lm_eval.tables(folder).score_columns() == ["exact_match,1", "exact_match,2", "score"]
    filters = [{"name": "strict-match"}, {"name": "flexible-extract"}]
    results(f"m/results_{TIME}.json", model_name="m", configs={"gsm8k": {"filter_list": filters}})
    assert lm_eval.read(folder, metrics=["exact_match,strict-match"]).outcomes.tolist() == [[1.0], [0.0]]
    assert lm_eval.read(folder, metrics=["exact_match,flexible-extract"]).outcomes.tolist() == [[0.0], [1.0]]
    with pytest.raises(SatlightError, match="doc_id 1 was logged 1 times, others 2 times"):
        lm_eval.read(log_samples("m", "gsm8k", lines[:-1]))


def test_entries_with_images_are_the_same_question(log_samples):
    for number, model in enumerate("ab"):
        doc = {"image": f"<PIL.PngImageFile image mode=RGB size=3x3 at 0x7F{number}>", "question": "What?"}
        folder = log_samples(model, "t", [{**sample(0, "p", acc=1), "doc": doc, "doc_hash": f"h{number}"}])
    assert lm_eval.read(folder).shape == (1, 2)


def test_one_null_among_values(log_samples):
    folder = log_samples("a", "t", [sample(0, "p", acc=None), sample(1, "q", acc=1)])
    assert lm_eval.read(folder).known.tolist() == [[False], [True]]


def test_a_task_without_a_score_is_skipped_and_said(log_samples):
    log_samples("a", "wikitext", [sample(0, "p", word_perplexity=12.5)])
    tables = lm_eval.tables(log_samples("a", "t", [sample(0, "p", acc=1)]))
    assert tables.instructions.height == 1
    assert any(note.startswith("wikitext of 'a' was skipped") for note in tables.notes)
