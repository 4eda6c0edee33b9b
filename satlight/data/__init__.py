"""Data modules: performance records in, blocks of the score matrix out."""

from satlight.data.base import AptitudeSpec, RoutingDataModule
from satlight.data.blocks import BlockSampler, GroupBlocks, RandomBlocks, TaskBlocks
from satlight.data.capability import CapabilityInstructionDataModule
from satlight.data.hard_blocks import HardGroupBlocks, HardNegativeBlocks, MiningSpec
from satlight.data.multimodal import MultimodalDataModule
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
    "MultimodalDataModule",
    "RandomBlocks",
    "RoutingDataModule",
    "SimulatedSpec",
    "TargetSpec",
    "TaskBlocks",
]
