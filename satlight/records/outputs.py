"""Outputs of the candidates: the optional outputs.parquet of a records folder (docs/data_format.md).

Shape legend: N instructions, M candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from satlight.errors import SatlightError
from satlight.records.folder import INSTRUCTIONS, MODELS, read_tables
from satlight.records.names import listed
from satlight.records.tables import as_text, readable, require_columns, require_first

OUTPUTS = "outputs.parquet"
COLUMNS = ("instruction_id", "model_id", "output")


class CandidateOutputs:
    """Outputs of candidates, looked up by the text of the instruction.

    Args:
        frame: Columns ``instruction``, ``model_id`` and ``output``, all text. The first of several outputs
            for the same text and candidate is used.

    Example:
        >>> outputs = CandidateOutputs(pl.DataFrame({"instruction": ["1+1?", "1+1?"],
        ...     "model_id": ["tiny", "large"], "output": ["3", "2"]}))
        >>> outputs.look_up(["1+1?"], ["large", "tiny"])
        [['2', '3']]
    """

    def __init__(self, frame: pl.DataFrame) -> None:
        columns = frame.select("instruction", "model_id", "output")
        self._frame = columns.unique(["instruction", "model_id"], keep="first", maintain_order=True)

    @classmethod
    def open(cls, folder: Path | str) -> CandidateOutputs:
        """Read and check the outputs of a records folder.

        Args:
            folder: A records folder with ``outputs.parquet``.

        Raises:
            SatlightError: The file is missing, or a row is invalid; the message shows the first one.
        """
        tables = read_tables(folder)
        path = Path(folder).expanduser() / OUTPUTS
        if not path.is_file():
            raise SatlightError(
                f"The records folder {folder} has no {OUTPUTS}, which re-ranking needs. It contains one row "
                f"per answer with the columns {listed(COLUMNS)}; see docs/data_format.md."
            )
        with readable(path, " as parquet"):
            frame = pl.read_parquet(path)
        require_columns(frame, COLUMNS, str(path))
        frame = frame.select(as_text(frame[name], str(path)) for name in COLUMNS)
        frame = frame.with_columns(pl.col("model_id").str.strip_chars())
        models = [candidate.model_id for candidate in tables.candidates]
        ids = tables.instructions["instruction_id"]
        for column, wrong, problem in (
            ("output", frame["output"].is_null(), "An output is text; remove rows of missing outputs."),
            ("instruction_id", ~frame["instruction_id"].is_in(ids.implode()), f"It must be in {INSTRUCTIONS}."),
            ("model_id", ~frame["model_id"].is_in(models), f"It must be in {MODELS}."),
        ):
            require_first(wrong, frame, column, str(path), problem)
        again = frame.select(~pl.struct("instruction_id", "model_id").is_first_distinct()).to_series()
        require_first(again, frame, "instruction_id", str(path), "Each pair with model_id has one output.")
        return cls(frame.join(tables.instructions.select("instruction_id", "instruction"), on="instruction_id"))

    @classmethod
    def from_dict(cls, content: Mapping[str, Sequence[str]]) -> CandidateOutputs:
        """Build what :meth:`to_dict` returned."""
        return cls(pl.DataFrame(content))

    def to_dict(self) -> dict[str, list[str]]:
        """Return the columns of the outputs as lists, e.g. for JSON."""
        return self._frame.to_dict(as_series=False)

    def look_up(self, instructions: Sequence[str], candidates: Sequence[str]) -> list[list[str]]:
        """Return the output of each candidate for each instruction.

        Args:
            instructions: N texts.
            candidates: M names.

        Returns:
            N lists of M outputs.

        Raises:
            SatlightError: A pair has no output.
        """
        wanted = pl.DataFrame({"instruction": list(instructions)}, schema={"instruction": pl.String}).join(
            pl.DataFrame({"model_id": list(candidates)}, schema={"model_id": pl.String}), how="cross"
        )
        found = wanted.join(self._frame, on=["instruction", "model_id"], how="left", maintain_order="left")
        missing = found.filter(pl.col("output").is_null())
        if len(missing):
            text, model_id, _ = missing.row(0)
            raise SatlightError(
                f"{len(missing)} of {len(found)} outputs are missing, the first of '{model_id}' for the "
                f"instruction {text[:80]!r}. Every compared candidate needs one; remove "
                "candidates or instructions, or add the rows."
            )
        outputs = found["output"].to_list()
        width = len(candidates)
        return [outputs[start : start + width] for start in range(0, len(outputs), width)]
