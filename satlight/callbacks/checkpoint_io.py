"""How the Trainer reads and writes checkpoints."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io import TorchCheckpointIO

from satlight.storage.checkpoints import read_checkpoint, relocate, write_checkpoint


class SafeCheckpointIO(TorchCheckpointIO):
    """Write checkpoints atomically next to their target; read tensors and plain values only.

    Lightning writes into the temporary folder of the system; if that is on another file system, the final move
    is a copy, and a kill during it destroys the previous checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
        else:
            write_checkpoint(checkpoint, path)

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint; ``weights_only`` is ignored and always true."""
        content = read_checkpoint(path, map_location)
        relocate(content, Path(os.path.realpath(path)).parent)
        return content
