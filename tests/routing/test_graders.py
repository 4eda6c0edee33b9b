"""Graders, on answers as models write them."""

import sys

import pytest

from satlight.errors import SatlightError
from satlight.routing.onboarding.graders import by_item, grader
from satlight.routing.onboarding.items import Item
from satlight.routing.onboarding.letters import stated_option

LETTERS = "ABCDEFGHIJ"
RED = ("dry palms", "wet palms", "oil", "lotion")


@pytest.mark.parametrize(
    ("answer", "stated"),
    [
        ("C", "C"),
        ("c", "C"),
        ("C.", "C"),
        ("(C)", "C"),
        ("**C**", "C"),
        ("**C.** oil", "C"),
        ("C) oil", "C"),
        ("Option C", "C"),
        ("The answer is (C)", "C"),
        ("the answer is C.", "C"),
        ("The correct answer is: **C. oil**", "C"),
        ("Answer: C", "C"),
        ("Answer:\n\nC", "C"),
        ("**Answer:** (C) because A and B are dry.", "C"),
        ("The answer is option C, since B is wrong.", "C"),
        ("The answer is A because friction is largest.", "A"),
        ("The answer is I because of the law.", "I"),
        ("The answer is J", "J"),
        ("First, the answer is A. Wait, no. The answer is (D).", "D"),
        ("The answer is not A, but C", "C"),
        ("$\\boxed{C}$", "C"),
        ("So \\boxed{\\text{C}}.", "C"),
        ("The final answer is $\\boxed{\\textbf{(C)}}$. I hope it is correct.", "C"),
        ("<think>Maybe the answer is A.</think>The answer is C", "C"),
        ("Maybe the answer is A.</think>\nC", "C"),
        ("A is wrong.\nB is wrong.\nSo it must be C", "C"),
        ("I'd go with C", "C"),
        ("I would choose C over D.", "C"),
        ("oil", "C"),
        ("The answer is oil.", "C"),
        ("It is (B), not (C).", "B"),
        ("\uff23", "C"),  # a full-width letter
        ("答案是 C", "C"),
        ("Let's think. Palm A has less friction than C", "C"),
        # nothing is stated
        ("", None),
        ("I cannot answer that.", None),
        ("I'm sorry, but I can't help with that.", None),
        ("As an AI, I do not give answers.", None),
        ("A difficult question.", None),
        ("The answer is a matter of opinion.", None),
        ("My answer is: I don't know.", None),
        ("The answer is A or B.", None),
        ("The answer is (A) and (C)", None),
        ("The answer is not B.", None),
        ("<think>The answer is C", None),  # cut off
        ("Vitamin C++ is none", None),
        ("It's the U.S.A", None),
        ("Z", None),
        ("ABCD", None),
    ],
)
def test_stated_option(answer, stated):
    assert stated_option(answer, LETTERS, (*RED, *"123456")) == stated


def test_labels_beyond_the_options_are_none():
    assert stated_option("The answer is E", LETTERS[:4], RED) is None


@pytest.mark.parametrize("reference", ["C", "c", "(C)", "oil", "Oil."])
def test_the_reference_is_a_label_or_a_text(reference):
    item = Item("i", "Which palms?", answer=reference, choices=RED)
    assert by_item(item, "The answer is (C)") == 1
    assert by_item(item, "The answer is (B)") == by_item(item, "No comment.") == 0


def test_labels_of_the_text_count():
    item = Item("i", "Which?\n1. dry\n2. wet", answer="2", choices=("dry", "wet"))
    assert item.labels == ("1", "2")
    assert by_item(item, "The answer is 2.") == 1
    assert by_item(item, "1") == 0


def test_a_reference_that_is_no_option_is_named():
    with pytest.raises(SatlightError, match=r"item 'i' has the reference answer '7', which is neither a label"):
        by_item(Item("i", "Which?", answer="7", choices=RED), "C")


@pytest.mark.parametrize(
    ("reference", "answer", "score"),
    [
        ("1234", "The total is 1,234.", 1),
        ("1,234", "$1234", 1),
        ("1234", "1.234", 0),
        ("42", "#### 42", 1),
        ("Steps. #### 42", "So we get 42 apples.", 1),
        ("42", "6 * 7 = 42", 1),
        ("42", "The answer is 42, which is 6 times 7.", 1),
        ("42", "42.0", 1),
        ("42", "42.5", 0),
        ("10000", "10001", 0),
        ("-3", "x = \u22123", 1),
        ("-3", "3", 0),
        ("0.5", "1/2", 1),
        ("0.5", "\\boxed{\\frac{1}{2}}", 1),
        ("1/2", "0.5", 1),
        ("\\frac{3}{4}", "The answer is 0.75", 1),
        ("50%", "0.5", 1),
        ("0.5", "50%", 1),
        ("50", "50 %", 1),
        ("3.14", "3.14159", 1),
        ("3.14", "3.2", 0),
        ("5", "The answer is 5 km.", 1),
        ("12", "1/0", 0),
        ("12", "", 0),
        ("12", "I cannot say.", 0),
        ("12", "9" * 100000, 0),
        ("12", "1e999999999", 0),
        ("1e3", "1000", 1),
        ("12", "<think>12</think> 13", 0),
    ],
)
def test_numeric(reference, answer, score):
    item = Item("i", "How many?", answer=reference)
    assert by_item(item, answer) == grader("numeric")(item, answer) == score


@pytest.mark.parametrize(
    ("reference", "answer", "score"),
    [
        ("Paris", " paris.", 1),
        ("Paris", "**Paris**", 1),
        ("Paris", "The answer is Paris.", 1),
        ("Paris", "Let me think.\nParis", 1),
        ("Paris", "Not Paris", 0),
        ("Paris", "Parisian", 0),
        ("C++", "c++", 1),
        ("C++", "C", 0),
        ("Paris", "", 0),
        ("caf\u00e9", "cafe\u0301", 1),
    ],
)
def test_exact(reference, answer, score):
    assert by_item(Item("i", "Where?", answer=reference), answer) == score


@pytest.mark.parametrize(
    ("answer", "score"), [("It is in Paris, France", 1), ("Parisian", 0), ("", 0), ("<think>Paris</think>Rome", 0)]
)
def test_contains(answer, score):
    assert grader("contains")(Item("i", "Where?", answer="Paris"), answer) == score


def test_a_number_that_is_none_is_named():
    with pytest.raises(SatlightError, match=r"'Paris', which is no number; choose another --grader"):
        grader("numeric")(Item("i", "Where?", answer="Paris"), "3")


@pytest.mark.parametrize(("answer", "score"), [("$x^2+2x+1$", 1), ("\\boxed{(x+1)^2}", 1), ("$x^2+1$", 0), ("", 0)])
def test_math(answer, score):
    pytest.importorskip("math_verify")
    assert grader("math")(Item("i", "Expand.", answer="(x+1)^2"), answer) == score


SCRIPT = """
import json, sys
asked = json.load(sys.stdin)
if asked["output"] == "fail": sys.exit("no idea")
if asked["output"] == "odd": print("good"); sys.exit()
print(0.25 if asked["output"] == asked["answer"] else 7)
"""


def test_own_command(tmp_path):
    (tmp_path / "own grader.py").write_text(SCRIPT)
    own = grader(f"{sys.executable} '{tmp_path}/own grader.py'")
    item = Item("i", "Where?", answer="Paris; rm -rf /")
    assert own(item, "Paris; rm -rf /") == 0.25
    for output, message in (("fail", "ended with code 1: no idea"), ("odd", "printed 'good'"), ("x", "printed '7'")):
        with pytest.raises(SatlightError, match=message):
            own(item, output)


def test_a_slow_command_is_stopped(monkeypatch):
    monkeypatch.setattr("satlight.routing.onboarding.graders.COMMAND_SECONDS", 0.2)
    with pytest.raises(SatlightError, match=r"item 'i', gave no score within 0\.2 s"):
        grader(f'{sys.executable} -c "import time; time.sleep(30)"')(Item("i", "Where?"), "x")


@pytest.mark.parametrize("name", ["leter", "no-such-program x", "", "'"])
def test_an_unknown_grader_is_named(name):
    with pytest.raises(SatlightError, match="--grader"):
        grader(name)
