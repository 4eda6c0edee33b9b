"""Data modules: performance records in, blocks of capability instructions out."""

from satlight.data.blocks import BlockSampler, GroupBlocks, RandomBlocks, TaskBlocks
from satlight.data.capability import AptitudeSpec, CapabilityInstructionDataModule
from satlight.data.hard_blocks import HardGroupBlocks, HardNegativeBlocks, MiningSpec
from satlight.data.targets import TargetSpec
from satlight.records.sources import SimulatedSpec

__all__ = [
    "AptitudeSpec",
    "BlockSampler",
    "CapabilityInstructionDataModule",
    "GroupBlocks",
    "HardGroupBlocks",
    "HardNegativeBlocks",
    "MiningSpec",
    "RandomBlocks",
    "SimulatedSpec",
    "TargetSpec",
    "TaskBlocks",
]
