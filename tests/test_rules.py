"""Decision rules: choices by hand, ties, order, text form; expected costs."""

import numpy as np
import pytest

from satlight.costs import expected_costs, require_costs
from satlight.errors import SatlightError
from satlight.rules import BestQuality, CheapestAtLeast, Utility, WithinBudget, parse_rule
from satlight.types import Candidate, Choice, Request

INF = float("inf")
RULES = [
    BestQuality(),
    CheapestAtLeast(0.0),
    CheapestAtLeast(0.6),
    CheapestAtLeast(0.9, threshold=1.5),
    Utility(0.0),
    Utility(0.3),
    Utility(INF),
    WithinBudget(2.0, threshold=0.2),
]


def random_block(seed: int, size: int = 40, columns: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and costs with many ties."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 6, (size, columns)).astype(np.float32) / 5, rng.integers(1, 4, (size, columns)).astype(float)


def plain_choice(rule, probability, cost):
    """The definition of each rule, one request at a time: Python's min takes the first of equals."""
    if isinstance(rule, CheapestAtLeast):
        enough = [c for c in range(len(cost)) if probability[c] >= np.float32(rule.threshold)]
        if enough:
            return min(enough, key=lambda c: (cost[c], -probability[c]))
        return min(range(len(cost)), key=lambda c: (-probability[c], cost[c]))
    weight = getattr(rule, "threshold", getattr(rule, "usd_weight", 0.0))
    if weight == INF:
        return min(range(len(cost)), key=lambda c: (cost[c], -probability[c]))
    return min(range(len(cost)), key=lambda c: (weight * cost[c] - float(probability[c]), cost[c]))


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("seed", range(5))
def test_choices_are_those_of_the_definition_and_come_first_in_the_order(rule, seed):
    probability, cost = random_block(seed)
    choice = rule.choose(probability, cost)
    order = rule.order(probability, cost)
    assert choice.dtype == order.dtype == np.int64
    assert choice.tolist() == [plain_choice(rule, *row) for row in zip(probability, cost, strict=True)]
    assert (order[:, 0] == choice).all()
    assert (np.sort(order, axis=1) == np.arange(order.shape[1])).all()
    # What is left after the choice is ranked by the same rule.
    rest = order[:, 1:]
    chosen = rule.choose(np.take_along_axis(probability, rest, 1), np.take_along_axis(cost, rest, 1))
    assert (chosen == 0).all()


def test_ties_go_to_the_price_then_to_the_zoo():
    equal = np.full((1, 3), 0.5)
    assert BestQuality().order(equal, np.array([2.0, 1.0, 1.0])).tolist() == [[1, 2, 0]]
    assert BestQuality().order(equal).tolist() == [[0, 1, 2]]
    assert BestQuality().order(equal, np.array([2.0, np.nan, 1.0])).tolist() == [[2, 0, 1]]  # unknown = highest
    assert CheapestAtLeast(0.4).order(equal, np.array([1.0, 1.0, 0.5])).tolist() == [[2, 0, 1]]


def test_at_any_price_the_cheapest_then_the_likeliest_is_chosen():
    probability = np.array([[0.1, 0.8, 0.9], [0.7, 0.2, 0.9], [-INF, 0.2, 0.9]])
    assert Utility(INF).choose(probability, np.array([1.0, 1.0, 2.0])).tolist() == [1, 0, 1]


def test_a_target_compares_in_the_precision_of_the_probabilities():
    assert CheapestAtLeast(0.9).choose(np.array([[0.9, 0.95]], dtype=np.float32), np.array([1.0, 2.0])).tolist() == [0]


@pytest.mark.parametrize("text", ["best", "cheapest@0.9", "cheapest@1", "budget@0.002", "budget@1e-05", "utility@50"])
def test_text_round_trip(text):
    assert parse_rule(text).text == text
    assert str(parse_rule(f" {text} ")) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no decision rule; allowed are best, cheapest@PROBABILITY"),
        ("best@1", "is no decision rule"),
        ("fastest@2", "'fastest@2' is no decision rule"),
        ("cheapest", "after cheapest@ comes a quality from 0 to 1"),
        ("cheapest@x", "after cheapest@ comes"),
        ("cheapest@90", "is 90.0; it is a probability"),
        ("cheapest@nan", "after cheapest@ comes"),
        ("budget@0", "must be above 0"),
        ("utility@-1", "0 or more"),
        ("utility@inf", "after utility@ comes"),
    ],
)
def test_mistakes_in_the_text_are_named(text, message):
    with pytest.raises(SatlightError, match=message):
        parse_rule(text)


def test_what_a_rule_lacks_is_named():
    probability = np.array([[0.5, 0.6]])
    with pytest.raises(SatlightError, match="1 of 2 are unknown"):
        Utility(1.0).choose(probability, np.array([1.0, np.nan]))
    with pytest.raises(SatlightError, match="needs a finite cost"):
        Utility(1.0).choose(probability)
    with pytest.raises(SatlightError, match=r"satlight calibrate DIR --budget 0.002"):
        WithinBudget(0.002).choose(probability, np.array([1.0, 2.0]))
    with pytest.raises(SatlightError, match="NaN"):
        BestQuality().choose(np.array([[0.5, np.nan]]))


# -- expected costs ----------------------------------------------------------------------------------------


def test_expected_costs_by_prices_by_log_and_unknown():
    zoo = [
        Candidate("priced", price_in=2.0, price_out=10.0, tokens_out=50.0, cost_usd=9.0),  # prices come first
        Candidate("free", price_in=0.0, price_out=0.0),
        Candidate("logged", price_in=2.0, price_out=10.0, cost_usd=0.5),
        Candidate("prices-only", price_in=2.0, price_out=10.0),
        Candidate("nothing"),
    ]
    cost = expected_costs(zoo, ["x" * 4000, Request("é" * 2)])
    assert cost[:, :3] == pytest.approx(np.array([[0.002 + 0.0005, 0, 0.5], [2e-6 + 0.0005, 0, 0.5]]))
    assert np.isnan(cost[:, 3:]).all()
    assert expected_costs(zoo, []).shape == (0, 5)
    require_costs(zoo[:3], "x")
    with pytest.raises(SatlightError, match=r"'prices-only' is unknown.*no tokens_out.*satlight zoo set-price"):
        require_costs(zoo, "The rule cheapest@0.9")
    with pytest.raises(SatlightError, match=r"'nothing'.*no price_in, price_out, tokens_out"):
        require_costs(zoo[4:], "x")


def test_a_choice_in_json_has_no_digits_of_double_precision():
    choice = Choice("a", float(np.float32(0.88)), -2.0, float(np.float32(0.0004)))
    assert choice.to_dict() == {"model_id": "a", "probability": 0.88, "score": -2.0, "cost_usd": 0.0004}
    assert Choice("b", 0.5, 0.0).to_dict()["cost_usd"] is None
