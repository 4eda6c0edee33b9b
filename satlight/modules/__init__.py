"""Routers: LightningModules that score blocks. transformers is imported when one is built, not before."""

from satlight.backbones.lora import LoraSpec
from satlight.modules.base import BlockRouter, OptimizerSpec
from satlight.modules.encoder import CapabilityEncoder
from satlight.modules.model_sat import ModelSAT
from satlight.modules.projector import Projector
from satlight.modules.router_llm import RouterLLM

__all__ = [
    "BlockRouter",
    "CapabilityEncoder",
    "LoraSpec",
    "ModelSAT",
    "OptimizerSpec",
    "Projector",
    "RouterLLM",
]
