"""Items, answers that survive a kill, and the runner; nothing here needs litellm."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image

from satlight.capability import AptitudeTest, CoreTask
from satlight.errors import SatlightError
from satlight.images import image_names
from satlight.routing.onboarding.cache import Answer, AnswerCache, key_of
from satlight.routing.onboarding.items import (
    Item,
    core_items,
    export_items,
    informative_first,
    read_items,
    read_results,
)
from satlight.routing.onboarding.profile import accuracies, wilson
from satlight.routing.onboarding.runner import Pace, Passing, ask_all

# -- items -------------------------------------------------------------------------------------------------


def task(name: str, count: int, **more) -> CoreTask:
    ids = tuple(f"{name}{k}" for k in range(count))
    return CoreTask(name, name, ids, tuple(f"{name} {k}?" for k in range(count)), "d", **more)


def test_tasks_that_separate_come_first_and_items_stay_in_order():
    test = AptitudeTest((task("a", 3), task("b", 1), task("c", 2)), (0.5,) * 3, (0.1, 0.3, 0.2))
    assert [item.item_id for item in core_items(test)] == ["b0", "c0", "a0", "c1", "a1", "a2"]
    plain = AptitudeTest(test.tasks)  # spread unknown
    assert [item.item_id for item in core_items(plain)] == ["a0", "b0", "c0", "a1", "c1", "a2"]
    assert informative_first([], {}) == []


def test_choices_and_answers_survive_the_folder():
    test = AptitudeTest((task("a", 2, answers=("A", None), choices=(("x", "y"), ())), task("b", 1)))
    again = AptitudeTest.from_dict(json.loads(json.dumps(test.to_dict())))
    assert again == test
    first, other, last = (core_items(again)[k] for k in (0, 2, 1))
    assert (first.answer, first.choices, other.answer, other.choices) == ("A", ("x", "y"), None, ())
    assert (last.answer, last.choices) == (None, ())


def test_a_test_of_an_older_version_has_no_choices():
    old = AptitudeTest((task("a", 2, answers=("A", "B")),)).to_dict()
    for one in old["tasks"]:
        del one["choices"]
    assert [item.choices for item in core_items(AptitudeTest.from_dict(old))] == [(), ()]


def test_choices_of_another_length_are_damage():
    content = AptitudeTest((task("a", 2, choices=(("x", "y"), ())),)).to_dict()
    content["tasks"][0]["choices"] = [["x", "y"]]
    with pytest.raises(SatlightError, match=r"task 'a' has 2 ids and 2 texts, .* of 2, 1, 2 items"):
        AptitudeTest.from_dict(content)


def test_the_prompt_shows_options_once():
    item = Item("i", "Which?", choices=("dry", "wet"))
    assert item.prompt() == 'Which?\n\nA. dry\nB. wet\n\nEnd with "The answer is (X)", where X is one of A, B.'
    assert item.prompt("") == "Which?\n\nA. dry\nB. wet"
    assert (
        Item("i", "Which?\n(a) dry\n(b) wet", choices=("dry", "wet")).prompt("Now.")
        == "Which?\n(a) dry\n(b) wet\n\nNow."
    )
    assert Item("i", "How many?").prompt() == "How many?"


def test_images_are_found_by_content(tmp_path):
    for folder, color in (("one", "red"), ("two", "blue")):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (4, 4), color).save(tmp_path / folder / "a.png")
    test = AptitudeTest((task("a", 1, images=(image_names([str(tmp_path / "two/a.png")]),)),))
    assert core_items(test, tmp_path)[0].images == (tmp_path / "two/a.png",)
    export_items(core_items(test, tmp_path), tmp_path / "out.jsonl")
    (line,) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert line["images"][0].startswith("data:image/png;base64,")
    with pytest.raises(SatlightError, match=r"e\.g\. a\.png, .*--images DIR"):
        core_items(test)
    with pytest.raises(SatlightError, match=r"a\.png .* has another content: --images .*one"):
        core_items(test, tmp_path / "one")


def test_items_of_a_file(tmp_path):
    path = tmp_path / "items.jsonl"
    AptitudeTest((task("a", 2, answers=("A", None), choices=(("x", "y"), ())),)).export(path)
    first, last = read_items(path)
    assert first == Item("a0", "a 0?", "d", "a", "A", ("x", "y"))
    assert last.answer is None
    path.write_text(path.read_text() * 2)
    with pytest.raises(SatlightError, match="line 3: the item 'a0' occurs twice"):
        read_items(path)
    for text, message in (
        ("", "has no items"),
        ('{"instruction_id": 3}', "line 1: instruction_id is missing or no text"),
    ):
        path.write_text(text)
        with pytest.raises(SatlightError, match=message):
            read_items(path)


ITEMS = [Item(f"i{k}", f"{k}?", answer=str(k)) for k in range(4)]


def results(tmp_path, *lines):
    path = tmp_path / "results.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_results_of_the_first_items_are_complete(tmp_path):
    path = results(tmp_path, {"id": "i1", "answer": "1"}, {"id": "i0", "score": 0.5})
    assert read_results(path, ITEMS, None) == [(ITEMS[1], "1"), (ITEMS[0], 0.5)]
    assert read_results(path, ITEMS, 2) == read_results(path, ITEMS, None)
    with pytest.raises(SatlightError, match=r"lacks 1 of the 3 items that are needed, e\.g\. .*i2"):
        read_results(path, ITEMS, 3)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"id": "i0", "score": 1}, {"id": "i2", "score": 1}], r"lacks 2 of the 4 items that are needed.*i1"),
        ([], "lacks 4 of the 4"),
        ([{"id": "x", "score": 1}], r"line 1: 'x' is no item .*whose ids are like 'i0'"),
        ([{"id": ["i0"], "score": 1}], r"line 1: \['i0'\] is no item"),
        (["[]"], "line 1: None is no item"),
        ([{"id": "i0", "score": 1}] * 2, "line 2: the item 'i0' occurs twice"),
        ([{"id": "i0"}], "line 1: neither answer and score|neither answer"),
        ([{"id": "i0", "answer": "0", "score": 1}], "both answer and score"),
        ([{"id": "i0", "answer": 3}], "answer is 3; it must be the text"),
        ([{"id": "i0", "score": 1.5}], r"score is 1\.5; it must be a number from 0 to 1"),
        ([{"id": "i0", "score": True}], "score is True"),
        (['{"id": "i0", "score": NaN}'], "line 1: not valid JSON"),
        (["<html>"], "line 1: not valid JSON"),
    ],
)
def test_mistakes_in_results_are_named(tmp_path, lines, message):
    with pytest.raises(SatlightError, match=message):
        read_results(results(tmp_path, *lines), ITEMS, None)


# -- cache -------------------------------------------------------------------------------------------------


def test_a_torn_line_is_ignored_and_the_next_is_whole(tmp_path):
    cache = AnswerCache(tmp_path / "new")
    assert not cache.path.parent.exists()
    cache.put("k1", "i1", Answer("one\nline \u2028", 3, 4, "length"))
    cache.put("k2", "i2", Answer("two"))
    whole = cache.path.read_bytes()
    for cut in range(len(whole.splitlines()[0]) + 2, len(whole) - 1):
        cache.path.write_bytes(whole[:cut])
        again = AnswerCache(cache.path.parent)
        assert again.answers == {"k1": Answer("one\nline \u2028", 3, 4, "length")}
        assert again.damaged == 1
        again.put("k3", "i3", Answer("three"))
        assert set(AnswerCache(cache.path.parent).answers) == {"k1", "k3"}


@pytest.mark.parametrize(
    "line", [b"\0\0\0", b"\xff", b"[]", b"{}", b'{"key": "k", "answer": {"text": 3}}', b"[" * 5000]
)
def test_unreadable_lines_are_counted(tmp_path, line):
    cache = AnswerCache(tmp_path)
    cache.put("k1", "i1", Answer("one"))
    with cache.path.open("ab") as file:
        file.write(line)
    again = AnswerCache(tmp_path)
    assert (set(again.answers), again.damaged) == ({"k1"}, 1)


def test_keys_depend_on_everything():
    asked = {"model": "m", "api_base": None, "item": "i", "prompt": "p", "temperature": 0.0}
    keys = {key_of(**asked), *(key_of(**{**asked, name: "other"}) for name in asked)}
    assert len(keys) == 6
    assert key_of(**asked) == key_of(**asked)


# -- runner ------------------------------------------------------------------------------------------------


def run(ask, count=20, **pace):
    """Ask ``count`` items on a clock that only waits advance; returns answers and the time at the end."""
    kept: dict[int, str] = {}
    loop = asyncio.new_event_loop()
    now = [0.0]
    loop.time = lambda: now[0]  # type: ignore[method-assign]

    async def sleep(seconds):
        now[0] += max(seconds, 0)
        await asyncio.sleep(0)

    try:
        setting = Pace(**{"sleep": sleep, "random": random.Random(0), **pace})
        loop.run_until_complete(
            ask_all(range(count), ask, lambda item, answer: kept.update({item: answer.text}), setting)
        )
    finally:
        loop.close()
    return kept, now[0]


def test_requests_at_a_time_are_limited():
    at_once, most = 0, 0

    async def ask(item):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        for _ in range(3):
            await asyncio.sleep(0)
        at_once -= 1
        return Answer(str(item))

    kept, _ = run(ask, concurrency=4)
    assert kept == {item: str(item) for item in range(20)}
    assert most == 4


def test_errors_that_pass_are_repeated_with_growing_waits():
    tries: dict[int, int] = {}

    async def ask(item):
        tries[item] = tries.get(item, 0) + 1
        if tries[item] <= 3:
            raise Passing("busy")
        return Answer(str(item))

    kept, seconds = run(ask, count=1, concurrency=1)
    assert (kept, tries) == ({0: "0"}, {0: 4})
    assert 3.5 <= seconds <= 7  # 1 + 2 + 4 seconds, each between half and all of it


def test_retry_after_holds_all_requests():
    times = []

    async def ask(item):
        times.append((item, asyncio.get_running_loop().time()))
        if len(times) == 1:
            raise Passing("429", retry_after=7.0)
        return Answer("x")

    kept, seconds = run(ask, count=3, concurrency=1)
    assert len(kept) == 3
    assert seconds == 7
    assert [time for _, time in times] == [0, 7, 7, 7]


def test_the_rate_is_kept():
    kept, seconds = run(lambda item: _answer(item), count=31, per_minute=30)
    assert len(kept) == 31
    assert seconds == pytest.approx(60)


async def _answer(item):
    return Answer(str(item))


def test_after_the_last_attempt_answers_are_kept():
    async def ask(item):
        if item == 5:
            raise Passing("the endpoint is down")
        return Answer("x")

    kept: list[int] = []
    pace = Pace(concurrency=1, retries=2, sleep=lambda _: asyncio.sleep(0))
    with pytest.raises(SatlightError, match=r"the endpoint is down \(3 attempts\)\. Answers so far are kept"):
        asyncio.run(ask_all(range(9), ask, lambda item, _: kept.append(item), pace))
    assert kept == [0, 1, 2, 3, 4]


def test_a_lasting_error_ends_the_others_at_once():
    asked = []

    async def ask(item):
        asked.append(item)
        if item == 0:
            raise SatlightError("wrong key")
        await asyncio.sleep(60)

    with pytest.raises(SatlightError, match="wrong key"):
        asyncio.run(ask_all(range(100), ask, lambda *_: None, Pace(concurrency=4)))
    assert len(asked) <= 4


def test_a_very_long_wait_is_an_error():
    async def ask(item):
        raise Passing("quota", retry_after=86400)

    with pytest.raises(SatlightError, match=r"quota; it asks to wait 86400 s.* again later"):
        run(ask)


@pytest.mark.parametrize(
    ("pace", "name"),
    [({"concurrency": 0}, "concurrency"), ({"retries": -1}, "retries"), ({"per_minute": 0}, "requests-per")],
)
def test_paces_out_of_range_are_named(pace, name):
    with pytest.raises(SatlightError, match=f"--{name}"):
        Pace(**pace)


KILLED = """
    import asyncio, os, signal, sys
    from pathlib import Path
    from satlight.routing.onboarding.cache import Answer, AnswerCache
    from satlight.routing.onboarding.runner import Pace, ask_all

    folder, last = Path(sys.argv[1]), int(sys.argv[2])
    cache = AnswerCache(folder)
    todo = [k for k in range(30) if str(k) not in cache.answers]

    async def ask(item):
        with (folder / "paid").open("a") as file:
            file.write(f"{item} ")
        await asyncio.sleep(0)
        return Answer(f"answer {item}")

    def keep(item, answer):
        cache.put(str(item), f"i{item}", answer)
        if len(cache.answers) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(ask_all(todo, ask, keep, Pace(concurrency=3)))
"""


def test_a_killed_run_goes_on_without_paying_twice(tmp_path):
    for last, code in ((7, -signal.SIGKILL), (19, -signal.SIGKILL), (99, 0)):
        words = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), str(last)]
        assert (
            subprocess.run(words, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, check=False).returncode
            == code
        )
    assert {key: answer.text for key, answer in AnswerCache(tmp_path).answers.items()} == {
        str(k): f"answer {k}" for k in range(30)
    }
    paid = (tmp_path / "paid").read_text().split()
    assert set(paid) == {str(k) for k in range(30)}
    assert len(paid) <= 30 + 2 * 2  # the requests on their way at each of the two kills


# -- profile -----------------------------------------------------------------------------------------------


def test_intervals_cover():
    rng = np.random.default_rng(0)
    for p, count in ((0.05, 20), (0.5, 20), (0.9, 128)):
        means = rng.binomial(count, p, 4000) / count
        inside = np.mean([low <= p <= high for low, high in (wilson(mean, count) for mean in means)])
        assert inside > 0.92
    assert wilson(0.0, 5)[0] == 0
    assert wilson(1.0, 5)[1] == 1


def test_accuracies_per_task():
    items = [Item("a", "?", "d", "t"), Item("b", "?", "d", "s"), Item("c", "?", "d", "t")]
    rows = accuracies(items, [1.0, 0.0, 0.5])
    assert [(row.name, row.items, row.mean) for row in rows] == [
        ("all items", 3, 0.5),
        ("d/s", 1, 0.0),
        ("d/t", 2, 0.75),
    ]
