"""Objectives as modules: their parts, their errors, and injection from YAML."""

from __future__ import annotations

from argparse import ArgumentError

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn

from satlight.errors import SatlightError
from satlight.losses import CandidateContrastive, InstructionContrastive, Objective, Pointwise, WeightedSum, functional

SCORE = torch.tensor([[0.2, -1.0, 0.5], [1.5, 0.1, -0.3]])
TARGET = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
KNOWN = torch.tensor([[True, True, True], [True, True, False]])


@pytest.mark.parametrize(
    ("objective", "name"),
    [
        (InstructionContrastive(temperature=0.5), "instruction_contrastive"),
        (CandidateContrastive(temperature=0.5), "candidate_contrastive"),
    ],
)
def test_contrastive_modules_pass_their_settings(objective, name):
    parts = objective(SCORE, TARGET, KNOWN, None)
    expected = getattr(functional, name)(SCORE, TARGET, KNOWN, temperature=0.5)
    torch.testing.assert_close(parts["loss"], expected)
    torch.testing.assert_close(parts[name], expected)
    assert "temperature=0.5" in repr(objective)


def test_weighted_sum_adds_and_keeps_the_graph_of_the_loss_alone():
    score = SCORE.clone().requires_grad_()
    objective = WeightedSum({"column": InstructionContrastive(), "cell": Pointwise()}, {"column": 2.0, "cell": 0.5})
    parts = objective(score, TARGET, KNOWN)
    assert parts["loss"].item() == pytest.approx(2 * parts["column"].item() + 0.5 * parts["cell"].item())
    assert parts["loss"].requires_grad
    assert not parts["cell"].requires_grad
    assert parts["cell"].item() == pytest.approx(functional.pointwise(SCORE, TARGET, KNOWN).item())
    assert "column" in repr(objective)


def test_objectives_have_no_parameters():
    objective = WeightedSum({"cell": Pointwise()}, {"cell": 1.0})
    assert list(objective.parameters()) == []
    assert objective.state_dict() == {}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: InstructionContrastive(temperature=0), "temperature is 0; it must be greater than 0"),
        (lambda: CandidateContrastive(temperature=float("nan")), "CandidateContrastive: temperature is nan"),
        (lambda: InstructionContrastive(threshold=1.5), r"threshold is 1.5; it must lie in \(0, 1\]"),
        (lambda: WeightedSum({}, {}), "objectives is empty"),
        (lambda: WeightedSum({"a": Pointwise()}, {"b": 1.0}), r"objectives are \['a'\] but weights are for \['b'\]"),
        (lambda: WeightedSum({"a": Pointwise()}, {"a": -1.0}), "weights must be 0 or more, got {'a': -1.0}"),
        (lambda: WeightedSum({"loss": Pointwise()}, {"loss": 1.0}), r"\['loss'\] cannot name an objective"),
        (lambda: WeightedSum({"values": Pointwise()}, {"values": 1.0}), r"\['values'\] cannot name an objective"),
    ],
)
def test_bad_settings_say_what_is_allowed(build, message):
    with pytest.raises(SatlightError, match=message):
        build()


@pytest.mark.parametrize("kind", [Objective, nn.Module])
def test_yaml_injects_a_weighted_sum(kind):
    yaml = """
    class_path: satlight.losses.WeightedSum
    init_args:
      objectives:
        row: {class_path: satlight.losses.CandidateContrastive, init_args: {temperature: 0.5}}
        cell: {class_path: satlight.losses.Pointwise}
      weights: {row: 1.0, cell: 0.5}
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--objective", type=kind)
    objective = parser.instantiate(parser.parse_args([f"--objective={yaml}"])).objective
    assert isinstance(objective, WeightedSum)
    assert objective.objectives["row"].temperature == 0.5
    assert objective.weights == {"row": 1.0, "cell": 0.5}


def test_yaml_with_a_typo_is_refused():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--objective", type=Objective)
    with pytest.raises(ArgumentError, match="temprature"):
        parser.parse_args(["--objective=InstructionContrastive", "--objective.temprature=2"])
