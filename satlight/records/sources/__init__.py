"""Sources of records: one module per file format, each with ``tables(path, …)`` and ``read(path, …)``.

To add a format, write its module, add a line to :data:`SOURCES` and a test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from satlight.errors import SatlightError

if TYPE_CHECKING:
    from satlight.records.matrix import PerformanceRecords

SOURCES = {
    "csv": "satlight.records.sources.csv",
    "feedback": "satlight.records.sources.feedback",
    "lm-eval": "satlight.records.sources.lm_eval",
    "mathv": "satlight.records.sources.mathv",
    "mmlu-pro": "satlight.records.sources.mmlu_pro",
    "routerbench": "satlight.records.sources.routerbench",
    "routerdc": "satlight.records.sources.routerdc",
    "vlmevalkit": "satlight.records.sources.vlmevalkit",
}
"""Format name → module."""


SIMULATED = ("simulated", "simulated-multimodal")
"""Names of simulated zoos, which stand for records."""


@dataclass
class SimulatedSpec:
    """Size, seed and test share of a simulated zoo, see :class:`satlight.records.simulated.SimulatedZoo`.

    Args:
        num_instructions: N, at least 1.
        num_candidates: M, at least 2.
        seed: Not negative.
        test_fraction: Fraction of test rows in each task, in [0, 1).
    """

    num_instructions: int = 4000
    num_candidates: int = 30
    seed: int = 0
    test_fraction: float = 0.25


def source(name: str) -> ModuleType:
    """Return the module that reads the format ``name``.

    Raises:
        SatlightError: Unknown format.
    """
    if name not in SOURCES:
        raise SatlightError(f"Unknown records format '{name}'. Available: {', '.join(SOURCES)}.")
    return import_module(SOURCES[name])


def open_records(
    source: str | Path,
    score_column: str = "score",
    *,
    candidates: str | Sequence[str] | None = None,
    datasets: str | Sequence[str] | None = None,
    simulated: SimulatedSpec | None = None,
) -> PerformanceRecords:
    """Open records of any kind that ``--data.records`` accepts.

    Args:
        source: A records folder, a ``.csv`` or ``.jsonl`` file with instruction, candidate and score, or
            one of :data:`SIMULATED` for a simulated zoo.
        score_column: Numeric column of the records to use as the outcome, in [0, 1].
        candidates: Names or patterns of the candidates to keep; None = all.
        datasets: Names or patterns of the datasets to keep; None = all.
        simulated: Size and seed of the simulated zoo; None = the defaults. Other sources ignore it.

    Returns:
        Records, N × M, in which every candidate has at least one outcome.

    Raises:
        SatlightError: The source is missing or invalid, or nothing is left after filtering.

    Example:
        >>> import pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "log.csv"
        >>> _ = file.write_text("instruction,candidate,score\\n1+1?,tiny,0\\n1+1?,large,1\\n")
        >>> open_records(file, candidates="lar*").model_ids
        ['large']
        >>> open_records("simulated", simulated=SimulatedSpec(100, 3)).shape
        (100, 3)
    """
    from satlight.records.dense import require_records

    records = (
        _simulate(str(source), simulated or SimulatedSpec(), score_column)
        if source in SIMULATED
        else _read(source, score_column)
    )
    if candidates is not None or datasets is not None:
        records = records.filter(candidates=candidates, datasets=datasets)
        require_records(records, f"The selection from '{records.name}' (datasets={datasets})")
    return records


def _simulate(source: str, spec: SimulatedSpec, score_column: str) -> PerformanceRecords:
    from satlight.records.simulated import SimulatedMultimodalZoo, SimulatedZoo

    if score_column != "score":
        raise SatlightError(f"The simulated zoo has no score column '{score_column}'. Available: 'score'.")
    zoo = SimulatedMultimodalZoo if source == "simulated-multimodal" else SimulatedZoo
    return zoo(**asdict(spec)).generate()


def _read(source: str | Path, score_column: str) -> PerformanceRecords:
    path = Path(source).expanduser()
    if not path.exists():
        raise SatlightError(
            f"The records '{source}' do not exist. Give a records folder, a .csv or .jsonl file, or one of "
            f"the words {' and '.join(repr(word) for word in SIMULATED)}."
        )
    if path.is_dir():
        from satlight.records.folder import open_folder

        return open_folder(path, score_column)
    if path.suffix.lower() in (".csv", ".jsonl", ".ndjson"):
        from satlight.records.sources import csv

        return csv.read(path, score_column)
    raise SatlightError(
        f"Cannot tell how to read {path}. Give a records folder or a .csv or .jsonl file; convert other "
        f"formats ({', '.join(SOURCES)}) with `satlight data import --from FORMAT PATH --to DIR`."
    )
