"""``satlight onboard``: a new candidate takes the test through stand-ins and joins the router, or nothing changes."""

import json

import numpy as np
import pytest

from satlight.baselines import build
from satlight.records.simulated import SimulatedZoo
from satlight.routers import Router
from satlight.routing.onboarding.cache import Answer, AnswerCache, key_of
from satlight.routing.onboarding.endpoints import Sampling
from satlight.rules import CheapestAtLeast


class Stub:
    """A source without a network."""

    def __init__(self, asked: list, reply, prices=None, tokens=10):
        self.sampling, self.asked, self.reply, self._prices, self.tokens = Sampling(), asked, reply, prices, tokens

    def key(self, item):
        return key_of(item=item.item_id)

    def prices(self):
        return self._prices

    async def ask(self, item):
        self.asked.append(item.item_id)
        return Answer(self.reply(item.prompt()), 5, self.tokens)


@pytest.fixture
def asked(monkeypatch, reply) -> list:
    asked: list[str] = []
    monkeypatch.setattr("satlight.cli.asking.source_of", lambda args: Stub(asked, reply))
    return asked


ENDPOINT = ("--api-base", "http://localhost:1/v1", "--yes")


def test_it_asks_grades_and_admits(command, folder, asked):
    done = command("onboard", "--router", folder, "--model", "new", *ENDPOINT, "--price-in", 1, "--price-out", 2)
    assert done.code is None, done.err
    router = Router.from_pretrained(folder)
    new = router.candidates[-1]
    assert (new.model_id, new.price_in, new.price_out, new.tokens_out) == ("new", 1, 2, 10)
    assert {result.task: (result.accuracy, result.items) for result in router.capabilities[-1].results} == {
        "sums": (1.0, 6),
        "law": (0.5, 4),
    }
    assert sorted(asked) == sorted(router.test.item_ids)
    assert "10 items, 0 answered before, 10 to ask" in done.err
    for shown in ("d/law", "0.500", "0.150 to 0.850", "all items", "0.800", "org/good-7b", "share of the 10 items"):
        assert shown in done.out
    assert "2 of 10 answers" not in done.err  # a refusal in words is an answer

    # Again, under another name: everything is in the cache.
    done = command("onboard", "--router", folder, "--model", "newer", "--to", folder.with_name("two"), *ENDPOINT[:2])
    assert done.code is None, done.err
    assert len(asked) == 10
    assert Router.from_pretrained(folder.with_name("two")).model_ids[-2:] == ["new", "newer"]
    assert Router.from_pretrained(folder).model_ids[-1] == "new"


def test_few_shots_are_those_that_separate(command, folder, asked):
    done = command("onboard", "--router", folder, "--model", "new", *ENDPOINT, "--shots", 3)
    assert done.code is None, done.err
    assert sorted(asked) == ["l0", "l1", "s0"]
    assert [result.items for result in Router.from_pretrained(folder).capabilities[-1].results] == [1, 2]
    done = command("onboard", "--router", folder, "--model", "newer", *ENDPOINT, "--shots", 11)
    assert (done.code, "--shots is 11; allowed are 1 to 10" in done.err) == (1, True)


def test_export_and_results(command, folder, tmp_path, state, reply):
    before = state(folder)
    done = command("onboard", "--router", folder, "--export", tmp_path / "items.jsonl", "--shots", 5)
    assert "wrote 5 of 10 items" in done.out
    lines = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ["l0", "s0", "l1", "s1", "l2"]
    assert lines[0]["choices"] == ["no", "yes"]
    assert "A. no\nB. yes" in lines[0]["prompt"]
    assert "answer" not in lines[0]
    assert state(folder) == before
    results = tmp_path / "results.jsonl"
    results.write_text("".join(json.dumps({"id": one["id"], "answer": reply(one["prompt"])}) + "\n" for one in lines))
    done = command("onboard", "--router", folder, "--model", "new", "--results", results)
    assert done.code is None, done.err
    found = {result.task: result.accuracy for result in Router.from_pretrained(folder).capabilities[-1].results}
    assert found == {"sums": 1.0, "law": pytest.approx(1 / 3)}
    results.write_text(results.read_text().split("\n", 1)[1])
    before = state(folder)
    done = command("onboard", "--router", folder, "--model", "newer", "--results", results)
    assert done.code == 1
    assert "lacks 6 of the 10 items that are needed" in done.err
    assert state(folder) == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "onboard got no model; give one of --export"),
        (("--model", "new", "--hf", "x", "--api-base", "http://x"), "got --hf and --api-base"),
        (ENDPOINT, "needs the name of the new candidate"),
        (("--model", "other/odd", *ENDPOINT), "has a candidate 'other/odd' already"),
        (("--model", "new", *ENDPOINT[:2]), "is no terminal; add --yes"),
        (("--model", "new", *ENDPOINT, "--grader", "leter"), "--grader 'leter' is neither one of letter"),
        (
            ("--model", "new", *ENDPOINT, "--grader", "letter"),
            "item 's0' has the reference answer '0', which is neither",
        ),
        (("--model", "new", *ENDPOINT, "--price-in", "-1"), "--price-in"),
        (("--model", "new", *ENDPOINT, "--concurrency", "0"), "--concurrency is 0"),
        (("--model", "new", "--results", "nowhere.jsonl"), "nowhere.jsonl cannot be read"),
        (("--export", "x.jsonl", "--model", "new"), "leave out --model"),
    ],
)
def test_mistakes_change_nothing_and_cost_nothing(command, folder, asked, more, message, state):
    before = state(folder)
    done = command("onboard", "--router", folder, *more)
    assert (done.code, asked) == (1, [])
    assert message in done.err
    assert state(folder) == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--api-key-env", "NO_SUCH_KEY"), "NO_SUCH_KEY: this variable is not set"),
        (("--max-tokens", "0"), "--max-tokens is 0"),
        (("--temperature", "3"), "--temperature 3"),
    ],
)
def test_settings_of_the_endpoint_are_checked(command, folder, more, message):
    done = command("onboard", "--router", folder, "--model", "new", *ENDPOINT, *more)
    assert done.code == 1
    assert message in done.err


def test_a_router_without_answers_says_what_to_do(command, make_router, tmp_path, asked, the_test):
    make_router(test=the_test(answers=False)).save(tmp_path / "router")
    words = ("onboard", "--router", tmp_path / "router", "--model", "new")
    done = command(*words, *ENDPOINT)
    assert (done.code, asked) == (1, [])
    assert "None of the 6 items has a reference answer" in done.err
    the_test().export(tmp_path / "items.jsonl")
    done = command(*words, *ENDPOINT, "--items", tmp_path / "items.jsonl")
    assert done.code is None, done.err
    assert sorted(asked) == [f"s{k}" for k in range(6)]
    make_router().save(tmp_path / "none")
    done = command("onboard", "--router", tmp_path / "none", "--export", tmp_path / "x")
    assert "keeps no texts of an aptitude test; give items" in done.err


def test_a_rule_that_needs_costs_asks_for_prices_first(command, make_router, tmp_path, asked, the_test):
    router = make_router(test=the_test())
    router.rule = CheapestAtLeast(0.5)
    priced = [type(one)(one.model_id, cost_usd=0.001) for one in router.candidates]
    router.candidates = tuple(priced)
    router.save(tmp_path / "router")
    words = ("onboard", "--router", tmp_path / "router", "--model", "new", *ENDPOINT)
    done = command(*words)
    assert (done.code, asked) == (1, [])
    assert "'new'" in done.err
    assert "cheapest@0.5" in done.err
    done = command(*words, "--price-in", 1, "--price-out", 2)
    assert done.code is None, done.err
    assert "fit it again with `satlight calibrate`" in done.out


@pytest.mark.parametrize("name", ["aptitude_knn", "tfidf_knn"])
def test_baselines_take_items_of_a_file(command, tmp_path, name):
    records = SimulatedZoo(num_instructions=600, num_candidates=4).generate().filter(splits="train")
    build(name, fixed={"k": 5}).fit(records).save(tmp_path / "router")
    lines = [
        {"instruction_id": key, "instruction": text, "answer": "1", "task": task}
        for key, text, task in zip(records.ids, records.texts, records.tasks, strict=True)
    ]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[:60]))
    words = ("onboard", "--router", tmp_path / "router", "--items", tmp_path / "items.jsonl")
    assert command(*words, "--export", tmp_path / "out.jsonl").code is None
    ids = [json.loads(line)["id"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    (tmp_path / "scores.jsonl").write_text("".join(json.dumps({"id": key, "score": 1}) + "\n" for key in ids))
    done = command(*words, "--model", "new", "--results", tmp_path / "scores.jsonl")
    assert done.code is None, done.err
    assert Router.from_pretrained(tmp_path / "router").score(["Hi"], ["new"]).probability_BC[0, 0] > 0.9
    (tmp_path / "items.jsonl").write_text(json.dumps(lines[0] | {"instruction_id": "other"}) + "\n")
    done = command(*words, "--export", tmp_path / "out.jsonl")
    assert (done.code, "none of its 1 items belongs to" in done.err) == (
        (1, True) if name == "aptitude_knn" else (None, False)
    )


def test_a_router_that_cannot_admit_says_so_first(command, folder, monkeypatch, asked):
    from satlight.routing import CapabilityRouter

    monkeypatch.setattr(CapabilityRouter, "admit", Router.admit)
    done = command("onboard", "--router", folder, "--model", "new", *ENDPOINT)
    assert (done.code, asked) == (1, [])
    assert "cannot admit 'new' without training" in done.err


def test_traffic_is_counted(command, folder, asked, tmp_path):
    traffic = tmp_path / "traffic.jsonl"
    traffic.write_text('{"instruction": "Hi"}\n{"instruction": "What is 2+2?"}\n')
    words = ("onboard", "--router", folder, "--model", "new", *ENDPOINT)
    done = command(*words, "--traffic", traffic)
    assert done.code is None, done.err
    share = float(done.out.split("sends to it: ")[1].split("%")[0]) / 100
    best = [ranking.best for ranking in Router.from_pretrained(folder).route(["Hi", "What is 2+2?"])]
    assert share == best.count("new") / 2


def test_a_local_model_answers(command, folder, tmp_path):
    path = tiny_causal_lm(tmp_path / "lm")
    words = ("onboard", "--router", folder, "--model", "new", "--hf", path, "--max-tokens", 3, "--shots", 4)
    done = command(*words)
    assert done.code is None, done.err
    cache = AnswerCache(folder.with_name("router-answers"))
    assert len(cache.answers) == 4
    assert all(answer.tokens_out <= 3 for answer in cache.answers.values())
    assert "answers were cut off at 3 tokens" in done.err
    done = command(*words[:4], "newer", *words[5:])
    assert "to ask" not in done.err
    done = command("onboard", "--router", folder, "--model", "newest", "--hf", tmp_path / "nowhere")
    assert (done.code, "cannot load a causal language model" in done.err) == (1, True)


def tiny_causal_lm(path):
    """Save a random causal language model with a tokenizer of words and a chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = {word: k for k, word in enumerate(["<unk>", "</s>", *"abcdefgh", "the", "answer", "is"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")
    fast.chat_template = "{% for m in messages %}the {{ m.content }}{% endfor %} answer is"
    fast.save_pretrained(path)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    config.eos_token_id = config.bos_token_id = None
    LlamaForCausalLM(config).save_pretrained(path)
    return path


def test_scores_are_float32_results():
    from satlight.routing.onboarding.items import Item
    from satlight.routing.onboarding.profile import results_of

    results = results_of([Item("a", "?", "d"), Item("b", "?", "d")], [1.0, 0.25])
    assert (results.outcomes.dtype, results.datasets, results.images) == (np.float32, ("d", "d"), ())
