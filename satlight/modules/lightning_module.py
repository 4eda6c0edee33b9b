"""The base class of all modules: LightningModule, or a plain torch module in a process that only scores.

Scoring uses nothing of Lightning, but importing it takes about as long as everything else that one routed
instruction needs. A process that only scores sets ``SATLIGHT_SCORING_ONLY=1`` before it imports
:mod:`satlight.modules`, as ``satlight route`` does. In all other processes, and wherever Lightning is
already imported, every module is a ``lightning.LightningModule``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import torch
from torch import nn

from satlight.backbones.scoring import is_scoring_only

SCORING_ONLY = is_scoring_only() and "lightning" not in sys.modules
"""True if the modules of this process are plain torch modules, which no Trainer accepts."""

if TYPE_CHECKING or not SCORING_ONLY:
    from lightning import LightningModule
else:

    class LightningModule(nn.Module):
        """Provide the part of ``lightning.LightningModule`` that scoring uses."""

        @property
        def device(self) -> torch.device:
            """Return the device of the parameters."""
            return next(self.parameters()).device
