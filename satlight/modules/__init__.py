"""Routers: LightningModules that score blocks. Importing them does not import transformers."""

from satlight.backbones.lora import LoraSpec
from satlight.modules.base import BlockRouter, OptimizerSpec
from satlight.modules.encoder import CapabilityEncoder
from satlight.modules.model_sat import ModelSAT
from satlight.modules.projector import Projector
from satlight.modules.router_llm import RouterLLM
from satlight.modules.terms import Reading, ScoreTerm

__all__ = [
    "BlockRouter",
    "CapabilityEncoder",
    "LoraSpec",
    "ModelSAT",
    "OptimizerSpec",
    "Projector",
    "Reading",
    "RouterLLM",
    "ScoreTerm",
]
