"""Decisions without litellm: deadline, queue, sticky conversations, failover, reload, endpoints."""

import asyncio
import logging
import shutil
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from satlight.errors import SatlightError
from satlight.rules import WithinBudget
from satlight.types import Request

pytest.importorskip("prometheus_client")

from satlight.serving import endpoints, reload
from satlight.serving.conversation import LRU
from satlight.serving.feedback import FeedbackLog
from satlight.serving.plugin import RoutingPlugin
from satlight.serving.state import CURRENT, RequestState


def user(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


class Slow:
    """A router that takes its time, or sees."""

    def __init__(self, router, seconds: float = 0.0, reads_images: bool = False) -> None:
        self.router, self.seconds, self.reads_images, self.calls = router, seconds, reads_images, []

    def route(self, requests: list[Request], candidates, rule: str):
        self.calls.append(requests)
        time.sleep(self.seconds)
        return self.router.route([request.text or "image" for request in requests], candidates, rule=rule)


def test_the_router_decides(make_engine, standin):
    decision = asyncio.run(make_engine().decide(user(standin.instructions("code")[0]), "best"))
    assert (decision.order[0], decision.reason, decision.rule) == ("code", "rule", "best")
    assert sorted(decision.order) == ["code", "law", "math"]
    assert decision.probability("code") > 0.5
    assert decision.probability("unknown") is None


def test_past_the_deadline_the_default_answers(make_engine, standin):
    engine = make_engine(deadline_ms=50)
    object.__setattr__(engine.loaded, "router", Slow(engine.loaded.router, seconds=0.5))
    start = time.perf_counter()
    decision = asyncio.run(engine.decide(user(standin.instructions("code")[0]), "best"))
    assert time.perf_counter() - start < 0.45
    assert (decision.order, decision.reason) == (("law", "math", "code"), "deadline")
    assert decision.ranking is None


def test_with_a_full_queue_the_default_answers(make_engine, standin):
    engine = make_engine(queue_size=1, batch_size=1)
    object.__setattr__(engine.loaded, "router", Slow(engine.loaded.router, seconds=0.3))

    async def several():
        return await asyncio.gather(*(engine.decide(user(f"Compute {n}"), "best") for n in range(5)))

    reasons = [decision.reason for decision in asyncio.run(several())]
    assert set(reasons) == {"rule", "queue_full"}
    assert reasons[0] == "rule"


def test_a_router_that_fails_does_not_stop_the_answers(make_engine):
    engine = make_engine()
    object.__setattr__(engine.loaded, "router", SimpleNamespace(reads_images=False))
    assert asyncio.run(engine.decide(user("Hi"), "best")).reason == "error"
    assert asyncio.run(engine.decide([], "best")).reason == "no_text"


def test_a_sticky_conversation_keeps_its_candidate(make_engine, standin):
    engine = make_engine(sticky=True)
    chat = user(standin.instructions("code")[0])
    longer = [*chat, {"role": "assistant", "content": "def f"}, *user(standin.instructions("math")[0])]
    requests = ((chat, "a"), (longer, "a"), (longer, "b"))
    first, second, other = (asyncio.run(engine.decide(messages, "best", scope)) for messages, scope in requests)
    assert (first.order[0], first.reason) == ("code", "rule")
    assert (second.order[0], second.reason, sorted(second.order)) == ("code", "sticky", ["code", "law", "math"])
    assert (other.order[0], other.reason) == ("math", "rule")


def test_requests_that_wait_are_scored_together(make_engine, standin):
    engine = make_engine()
    slow = Slow(engine.loaded.router, seconds=0.2)
    object.__setattr__(engine.loaded, "router", slow)

    async def several():
        texts = [standin.instructions("law")[n] for n in range(10)]
        return await asyncio.gather(*(engine.decide(user(text), "best") for text in texts))

    assert {decision.order[0] for decision in asyncio.run(several())} == {"law"}
    assert len(slow.calls) < 4
    assert "satlight_batch_size_count" in engine.metrics.text()


def test_images_reach_a_router_that_sees_and_bad_ones_are_the_clients_mistake(make_engine, png_url):
    engine = make_engine()
    seeing = Slow(engine.loaded.router, reads_images=True)
    object.__setattr__(engine.loaded, "router", seeing)

    def chat(url: str) -> list[dict]:
        return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]

    asyncio.run(engine.decide(chat(png_url()), "best"))
    assert len(seeing.calls[0][0].images) == 1
    with pytest.raises(SatlightError, match="not allowed"):
        asyncio.run(engine.decide(chat("https://example.org/a.png"), "best"))
    seeing.reads_images = False
    assert asyncio.run(engine.decide(chat("https://example.org/a.png"), "best")).reason == "no_text"


def test_requests_of_several_rules_share_a_batch(make_engine, standin):
    engine = make_engine()
    slow = Slow(engine.loaded.router, seconds=0.2)
    object.__setattr__(engine.loaded, "router", slow)

    async def several():
        rules = ["best", "cheapest@0", "best", "cheapest@0.5"]
        return await asyncio.gather(
            *(engine.decide(user(standin.instructions("law")[n]), r) for n, r in enumerate(rules))
        )

    assert [one.order[0] for one in asyncio.run(several())] == ["law", "math", "law", "law"]


def test_rules_are_checked_before_they_are_used(make_engine, standin, tmp_path):
    engine = make_engine()
    assert engine.checked_rule("cheapest@0.90") == "cheapest@0.9"
    for rule, message in (("fastest", "no decision rule"), ("budget@0.01", "no threshold")):
        with pytest.raises(SatlightError, match=message):
            engine.checked_rule(rule)
        with pytest.raises(SatlightError, match=message):
            make_engine(rule=rule)
    router = standin.skilled_router()
    router.candidates = (replace(router.candidates[0], price_in=None), *router.candidates[1:])
    router.save(tmp_path / "unpriced")
    with pytest.raises(SatlightError, match="that of 'math' is unknown"):
        make_engine(router_folder=tmp_path / "unpriced").checked_rule("cheapest@0.9")
    router = standin.skilled_router()
    router.rule = WithinBudget(0.01, threshold=1e9)
    router.save(tmp_path / "saved")
    saved = make_engine(router_folder=tmp_path / "saved")
    decision = asyncio.run(saved.decide(user(standin.instructions("law")[0]), saved.default_rule))
    assert (decision.rule, decision.order[0]) == ("budget@0.01", "math")


# -- the plugin --------------------------------------------------------------------------------------------


def context(text: str, models: list[str], group: str = "satlight") -> SimpleNamespace:
    return SimpleNamespace(
        structured_messages=user(text), candidate_models=models, metadata={"model_group": group}, signals={}
    )


def test_each_further_attempt_takes_the_next_candidate(make_engine, standin):
    plugin = RoutingPlugin(make_engine())
    models = ["openai/math", "openai/code", "openai/law"]
    state = RequestState("id", "best")

    async def attempts() -> list[str]:
        CURRENT.set(state)
        asked = []
        for _ in models:
            narrowed = await plugin.run(context(standin.instructions("code")[0], models))
            asked += narrowed.candidate_models
        with pytest.raises(SatlightError, match="All candidates failed"):
            await plugin.run(context("Hi", models))
        return asked

    asked = asyncio.run(attempts())
    assert asked[0] == "openai/code"
    assert sorted(asked) == sorted(models)
    assert (state.candidate, state.reason) == (asked[-1].removeprefix("openai/"), "failover")


def test_other_model_groups_and_missing_deployments(make_engine, standin):
    plugin = RoutingPlugin(make_engine())
    same = asyncio.run(plugin.run(context("Hi", ["x", "y"], group="math")))
    assert same.candidate_models == ["x", "y"]
    left = asyncio.run(plugin.run(context(standin.instructions("code")[0], ["openai/law"])))
    assert left.candidate_models == ["openai/law"]


# -- reload ------------------------------------------------------------------------------------------------


def test_reload_swaps_a_new_router_and_keeps_the_old_on_errors(make_engine, standin, router_folder, tmp_path, caplog):
    folder = tmp_path / "router"
    shutil.copytree(router_folder, folder)
    engine = make_engine(router_folder=folder)
    applied = []
    reloader = reload.Reloader(engine, applied.append)

    def look() -> bool:
        return asyncio.run(reloader.look())

    assert not look()
    standin.admitted(engine.loaded.router, "verse").save(folder)
    with caplog.at_level(logging.ERROR):
        assert not look()
    assert "no upstream for the candidates ['verse']" in caplog.text
    before = engine.loaded
    assert not look()  # the same files are not tried again
    standin.write_upstreams(engine.settings.config, {"math": 1, "code": 2, "law": 3, "verse": 4})
    assert look()
    assert applied == [engine.loaded]
    assert engine.loaded.active == ("math", "code", "law", "verse")
    assert engine.loaded.version != before.version
    (folder / "config.json").write_text("{", encoding="utf-8")
    assert not look()
    assert engine.loaded.active == ("math", "code", "law", "verse")
    assert 'satlight_reloads_total{result="failed"} 2.0' in engine.metrics.text()


# -- endpoints ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"instruction": ""},
        {"instruction": 1},
        {"instruction": "a", "messages": []},
        {"messages": [{"role": "system", "content": "x"}]},
        {"instructions": []},
        {"instructions": "a"},
        {"instructions": ["a"] * 257},
        {"instruction": "a", "model": "other"},
        {"instruction": "a", "model": "satlight:unknown"},
        {"instruction": "a", "surprise": 1},
    ],
)
def test_route_refuses_other_forms(make_engine, content):
    with pytest.raises(SatlightError):
        asyncio.run(endpoints.route(make_engine(), content))


@pytest.mark.parametrize(
    "content",
    [
        {"id": "a"},
        {"id": "a", "score": 1.5},
        {"id": "a", "score": True},
        {"id": "a", "score": float("nan")},
        {"id": "a", "thumbs": "sideways"},
        {"id": "a", "score": 1, "thumbs": "up"},
        {"id": "a", "score": 1, "surprise": 1},
    ],
)
def test_feedback_refuses_other_forms(tmp_path, content):
    with pytest.raises(SatlightError):
        asyncio.run(endpoints.feedback(LRU(9), FeedbackLog(tmp_path), content))
    assert [file.stat().st_size for file in tmp_path.iterdir()] == [0]
