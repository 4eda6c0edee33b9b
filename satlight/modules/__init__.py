"""Routers: LightningModules that score blocks. Importing them does not import transformers."""

from satlight.backbones.lora import LoraSpec
from satlight.modules.base import BlockRouter, OptimizerSpec, Part
from satlight.modules.encoder import CapabilityEncoder
from satlight.modules.model_sat import ModelSAT
from satlight.modules.projector import Projector
from satlight.modules.router_llm import RouterLLM
from satlight.modules.terms import Reading, ScoreTerm
from satlight.modules.vision import VisionEncoder, VisualProjector
from satlight.modules.visual_learners import VisualLearners

__all__ = [
    "BlockRouter",
    "CapabilityEncoder",
    "LoraSpec",
    "ModelSAT",
    "OptimizerSpec",
    "Part",
    "Projector",
    "Reading",
    "RouterLLM",
    "ScoreTerm",
    "VisionEncoder",
    "VisualLearners",
    "VisualProjector",
]
