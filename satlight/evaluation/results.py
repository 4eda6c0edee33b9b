"""The results of an evaluation, and the files that hold them."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from satlight.errors import SatlightError
from satlight.files import write_text


@dataclass
class RoutingResults:
    """What :func:`satlight.evaluation.evaluate` measured; ``results.json`` has the same keys.

    Accuracies, their intervals and differences and the areas ``aiq``, ``zero_router_aiq`` and ``nauc`` are
    percent; ``cost_*`` are US dollars per 1,000 instructions, ``selection_entropy`` is in bits, ``log_loss``
    in nats; everything else is a fraction or a ratio. None = cannot be measured.

    Args:
        datasets: Per dataset ``routed``, ``interval`` [low, high], the controls (``random``, ``best_single``,
            ``dataset_best``, ``task_best``, ``tfidf_knn``, ``aptitude_knn``, ``inferred_dataset``,
            ``dataset_oracle``, ``oracle``), ``versus_<control>`` [low, high] of the paired difference,
            ``gap_closed``, ``gain_random``, ``gain_best_single``, ``gap_oracle``, ``v_b``, ``ece``,
            ``brier``, ``forecast_accuracy``, ``auroc``, ``log_loss``, ``rare_solver_recall``,
            ``selection_entropy``, ``n`` instructions, ``n_unknown`` of them without a record of the routed
            candidate, ``share`` and ``single`` (own accuracy) of each candidate, ``best_single_candidate``,
            ``dataset_best_candidate``; on records with costs also ``zero_router``, ``cost_routed``,
            ``cost_<control>``, ``rci``, ``aiq``, ``zero_router_aiq``, ``nauc`` and ``qnc``; on simulated
            records also ``bayes_optimal``, ``routed_expected``, ``best_single_expected`` and
            ``reachable_gap_closed``, by true probabilities; with a ``calibration`` also ``ece_calibrated``.
        groups: The same per named group, macro means over its datasets.
        candidates: Candidate names, in the order of the scores' columns.
        split: Split that was judged.
        score_column: Column of the records that held the outcomes.
        data: ``name``, ``fingerprint`` and ``simulated`` of the judged records, and whether their ``costs``
            are "complete", "incomplete" (then nothing is said of them) or "none".
        seed: Of the bootstrap.
        calibration: ``temperature`` and ``bias`` fitted on validation; None = there are none.
    """

    datasets: dict[str, dict[str, Any]]
    groups: dict[str, dict[str, Any]]
    candidates: list[str]
    split: str
    score_column: str
    data: dict[str, Any]
    seed: int
    calibration: dict[str, float] | None = None

    def rows(self) -> list[dict[str, Any]]:
        """One flat row per dataset and group: the scalars, with intervals as two columns each.

        Returns:
            Rows with ``kind`` ("dataset" or "group"), ``name`` and equal keys throughout.
        """
        rows = []
        for kind, name, entry in self._entries():
            row: dict[str, Any] = {"kind": kind, "name": name}
            for key, value in entry.items():
                if isinstance(value, list):
                    row[f"{key}_low"], row[f"{key}_high"] = value
                elif not isinstance(value, dict):
                    row[key] = value
            rows.append(row)
        keys = list(dict.fromkeys(key for row in rows for key in row))
        return [{key: row.get(key) for key in keys} for row in rows]

    def choice_rows(self) -> list[dict[str, Any]]:
        """One row per dataset or group and candidate: ``share`` of the choices, own accuracy ``single``."""
        return [
            {"kind": kind, "name": name, "candidate": candidate}
            | {"share": entry["share"][candidate], "single": entry["single"][candidate]}
            for kind, name, entry in self._entries()
            for candidate in self.candidates
        ]

    def save(self, folder: Path | str) -> None:
        """Write ``results.json``, ``results.csv`` and ``choices.csv``, each whole or not at all.

        Args:
            folder: Where to; made if it is missing, files of these names are replaced.
        """
        folder = Path(folder)
        write_text(folder / "choices.csv", _csv(self.choice_rows()))
        write_text(folder / "results.csv", _csv(self.rows()))
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False)
        write_text(folder / "results.json", text + "\n")

    @classmethod
    def load(cls, path: Path | str) -> RoutingResults:
        """Read ``results.json``.

        Args:
            path: The file, or the folder that holds it.

        Raises:
            SatlightError: It is missing or not what :meth:`save` writes.
        """
        path = Path(path)
        path = path / "results.json" if path.is_dir() else path
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SatlightError(
                f"Cannot read results from {path}: {error}; `lightning test` writes them"
            ) from error
        wanted = {field.name for field in fields(cls)}
        if not isinstance(content, dict) or set(content) != wanted:
            got = sorted(content) if isinstance(content, dict) else type(content).__name__
            raise SatlightError(
                f"{path} is no results.json: got {got}, expected the keys {sorted(wanted)}; "
                "write it again with `lightning test`"
            )
        return cls(**content)

    def _entries(self) -> list[tuple[str, str, dict[str, Any]]]:
        return [("dataset", name, entry) for name, entry in self.datasets.items()] + [
            ("group", name, entry) for name, entry in self.groups.items()
        ]


def _csv(rows: list[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
