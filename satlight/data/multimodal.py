"""The data module of instructions with images, which worker processes read and decode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from satlight.data.blocks import BlockIndices
from satlight.data.capability import CapabilityInstructionDataModule
from satlight.data.stream import BlockDataset
from satlight.errors import SatlightError
from satlight.images import MAX_SIDE, read_image
from satlight.types import Block

if TYPE_CHECKING:
    from satlight.records import PerformanceRecords

IMAGE_TOKENS = 16
"""Length of an image when instructions are bucketed by length and the module does not state its ``image_tokens``."""


class ImageReader:
    """Read the images of instructions, keeping the last decoded ones.

    Args:
        records: N instructions.
        cached: Number of decoded images to keep in memory, per process; at most 0.8 MB each.

    Example:
        >>> from satlight.records import open_records
        >>> from satlight.records.sources import SimulatedSpec
        >>> records = open_records("simulated-multimodal", simulated=SimulatedSpec(60, 3))
        >>> row = next(row for row, images in enumerate(records.images) if images)
        >>> ImageReader(records)(row)[0].shape
        (128, 128, 3)
    """

    def __init__(self, records: PerformanceRecords, cached: int = 256) -> None:
        # Plain lists: polars must not be used in a forked worker.
        self.ids, self.images, self.cached = records.ids, records.images, cached
        self._read = lru_cache(cached)(_read)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_read"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._read = lru_cache(self.cached)(_read)

    def __call__(self, row: int) -> tuple[np.ndarray, ...]:
        """Return the images of instruction ``row``, uint8 (H, W, 3) each.

        Raises:
            SatlightError: An image cannot be read; names the instruction and the file.
        """
        try:
            return tuple(self._read(path) for path in self.images[row])
        except SatlightError as error:
            raise SatlightError(f"Instruction '{self.ids[row]}': {error}") from error


def _read(path: str) -> np.ndarray:
    return read_image(path, max_side=MAX_SIDE)


class Guarded(Dataset):
    """Return a SatlightError instead of raising it: a worker would wrap it in a traceback."""

    def __init__(self, blocks: BlockDataset) -> None:
        self.blocks = blocks

    def __getitem__(self, indices: BlockIndices) -> Block | SatlightError:
        try:
            return self.blocks[indices]
        except SatlightError as error:
            return SatlightError(str(error))  # without its traceback, which cannot be sent


class ImageLoader(DataLoader):
    """A loader that draws the first block when it is asked for, and raises what workers return as errors.

    A usual loader with workers draws blocks as soon as an iterator is made: Lightning does that before callbacks
    have set the stage of training.
    """

    def __iter__(self) -> Iterator[Block]:  # type: ignore[override]
        for block in super().__iter__():
            if isinstance(block, SatlightError):
                raise block
            yield block


class MultimodalDataModule(CapabilityInstructionDataModule):
    """Blocks of capability instructions with one image, several or none.

    Takes the arguments of :class:`~satlight.data.base.RoutingDataModule` and those below. Images are read when their
    block is due, at most :data:`satlight.images.MAX_SIDE` pixels long.

    Args:
        image_share: Share of the instructions with images among those that a pass of the sampler draws from, in
            [0, 1]; each pass takes as many as that allows. None = all, as the records have them. Single blocks
            differ, and samplers that skip instructions (groups without a negative) change the share.
        num_workers: Processes that read and decode images; 0 = the training process does.
        cached_images: Number of decoded images that each of them keeps in memory.

    Example:
        >>> from satlight.data import SimulatedSpec
        >>> data = MultimodalDataModule(simulated=SimulatedSpec(600, 4), num_workers=0)
        >>> data.setup("fit")
        >>> block = next(iter(data.train_dataloader()))
        >>> block.shape, len(block.images)
        ((32, 4), 32)

    Reference: [Zhang et al. 2025, Table 3].
    """

    def __init__(
        self,
        records: str = "simulated-multimodal",
        image_share: float | None = None,
        num_workers: int = 1,
        cached_images: int = 256,
        **kwargs: Any,
    ) -> None:
        super().__init__(records, **kwargs)
        if image_share is not None and not 0 <= image_share <= 1:
            raise SatlightError(f"data.image_share is {image_share}; it must lie in [0, 1], or be null")
        for key, value in (("num_workers", num_workers), ("cached_images", cached_images)):
            if value < 0:
                raise SatlightError(f"data.{key} is {value}; it must be 0 or more")
        self.image_share, self.num_workers, self.cached_images = image_share, num_workers, cached_images

    def loader(self, dataset: BlockDataset, indices: Iterable[BlockIndices]) -> DataLoader:
        dataset.read_images = ImageReader(dataset.view.records, self.cached_images)
        return ImageLoader(
            Guarded(dataset),
            sampler=indices,  # type: ignore[arg-type]
            batch_size=None,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,  # they keep their images from epoch to epoch
        )

    def _lengths(self, records: PerformanceRecords) -> np.ndarray:
        module = None if self.trainer is None else self.trainer.lightning_module
        per_image = getattr(module, "image_tokens", IMAGE_TOKENS)
        return super()._lengths(records) + per_image * np.array([len(images) for images in records.images])
