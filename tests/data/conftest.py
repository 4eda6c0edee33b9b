"""A data module over the small folder of records."""

import pytest

from satlight.data import AptitudeSpec, CapabilityInstructionDataModule, RandomBlocks


@pytest.fixture
def make(records_folder):
    """A data module over the small folder; not set up."""

    def build(**options) -> CapabilityInstructionDataModule:
        defaults = {
            "records": str(records_folder),
            "score_column": "correct",
            "aptitude": AptitudeSpec(num_shots=6, min_shots=3),
            "sampler": RandomBlocks(16),
        }
        return CapabilityInstructionDataModule(**(defaults | options))

    return build
