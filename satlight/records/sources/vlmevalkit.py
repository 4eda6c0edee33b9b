"""VLMEvalKit's results: one table per model and dataset with the column ``hit``, and the datasets with the images.

VLMEvalKit writes ``MODEL/MODEL_DATASET.xlsx`` (answers) and, after the evaluation, ``MODEL_DATASET_JUDGE_result.xlsx``
with ``hit`` (1 = right), also one folder deeper and as ``.tsv`` or ``.csv``. The images are in ``DATASET.tsv`` of its
data folder ``LMUData``, as base64.

Reference: Duan et al. 2024, "VLMEvalKit: An Open-Source Toolkit for Evaluating Large Multi-Modality Models"; format
read at commit 028a6e7702437394df9dfc5aa36be847ce6431f2 (Apache-2.0).
"""

from __future__ import annotations

import ast
import base64
import binascii
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from satlight.errors import SatlightError
from satlight.files import atomic_path, cache_dir
from satlight.images import read_image
from satlight.records.dense import build_records
from satlight.records.matrix import PerformanceRecords
from satlight.records.names import listed
from satlight.records.tables import RecordTables, check_instructions, named_candidates, readable

SUFFIXES = (".xlsx", ".tsv", ".csv")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
JUDGED = re.compile(r"(?:_(?:openai|exact_matching|gpt-?4[\w.-]*?|chatgpt-[\w.-]+?|auxmatch|score))?(?:_result)?$")
"""Endings that the evaluation adds to the name of a file."""

REFERENCE = 64
"""A shorter ``image`` is the index of the row that holds the image (VLMEvalKit's own rule)."""

Row = dict[str, str | None]


@dataclass
class _Found:
    """Content of the files."""

    results: dict[tuple[str, str], tuple[Path, list[Row]]] = field(default_factory=dict)
    datasets: dict[str, tuple[Path, dict[str, Row]]] = field(default_factory=dict)
    """File and rows by index."""
    unjudged: list[str] = field(default_factory=list)


def read(path: Path | str, score_column: str = "score", models: Path | str | None = None) -> PerformanceRecords:
    """Read VLMEvalKit's results as a matrix.

    Args:
        path: Folder with the results of any number of models and datasets, and the datasets' ``.tsv``, at any depth.
        score_column: ``"score"``: the column ``hit``.
        models: JSON file with details of the candidates, in the format of ``models.json``.

    Returns:
        Records; ``dataset`` is VLMEvalKit's, ``task`` the column ``category`` or ``l2-category``. No split.

    Raises:
        SatlightError: No result, a file with other content, or ``.xlsx`` files without openpyxl.
    """
    return build_records(tables(path, models), score_column)


def tables(path: Path | str, models: Path | str | None = None) -> RecordTables:
    """Read VLMEvalKit's results as tables; arguments and errors as for :func:`read`."""
    path = Path(path).expanduser()
    found = _find(path)
    if not found.results:
        raise SatlightError(
            f"{path} holds no {', '.join(SUFFIXES)} table with the columns index and hit. Tables with predictions that "
            f"VLMEvalKit has not evaluated: {listed(found.unjudged, 5) or 'none'}."
        )
    instructions: dict[str, dict[str, Any]] = {}
    changed: set[str] = set()
    outcomes: list[tuple[str, str, float]] = []
    for (model, dataset), (file, rows) in found.results.items():
        for number, row in enumerate(rows):
            key = f"{dataset}-{row['index']}"
            entry = _instruction(key, dataset, row)
            if instructions.setdefault(key, entry)["instruction"] != entry["instruction"]:
                changed.add(key)
            if (hit := row["hit"]) is not None:
                outcomes.append((key, model, _hit(hit, f"{file}, row {number} (counting from 0)")))
    kept = [entry for key, entry in instructions.items() if key not in changed]
    if not kept:
        raise SatlightError(f"No question of {path} is the same in the files of all models; import them one by one.")
    missing = _add_images(kept, found, path)
    frame = pl.DataFrame(kept, infer_schema_length=None)
    if not frame["images"].drop_nulls().len():
        frame = frame.drop("images")
    records = pl.DataFrame(outcomes, schema=["instruction_id", "model_id", "score"], orient="row")
    return RecordTables(
        instructions=check_instructions(frame, str(path)),
        candidates=named_candidates(list(dict.fromkeys(model for model, _ in found.results)), models),
        records=records.filter(~pl.col("instruction_id").is_in(list(changed))).lazy(),
        name="vlmevalkit",
        file=str(path),
        notes=_notes(len(changed), len(found.unjudged), missing),
    )


def _find(path: Path) -> _Found:
    files = [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.is_file()]
    found = _Found()
    answered: dict[Path, list[Row]] = {}
    for file in dict.fromkeys(file.resolve() for file in files if file.suffix.lower() in SUFFIXES):
        rows = list(_rows(file))
        columns = set(rows[0]) if rows else set()
        if {"index", "hit"} <= columns:
            answered[file] = rows
        elif {"index", "question", "prediction"} <= columns:
            found.unjudged.append(file.stem)
        elif {"index", "question"} <= columns and columns & {"image", "image_path"}:
            found.datasets[file.stem.removesuffix("_local")] = file, {str(row["index"]): row for row in rows}
    for file, rows in answered.items():
        key = model_and_dataset(file, found.datasets)
        if key in found.results:
            raise SatlightError(
                f"{found.results[key][0]} and {file} are both results of '{key[0]}' on '{key[1]}'. Keep one of them."
            )
        found.results[key] = file, rows
    judged = {JUDGED.sub("", file.stem) for file in answered}
    found.unjudged = [stem for stem in found.unjudged if stem not in judged]
    return found


def model_and_dataset(file: Path, datasets: Any = ()) -> tuple[str, str]:
    """Parse model and dataset from the name of a result, using the folder of the model or the known datasets.

    Example:
        >>> model_and_dataset(Path("outputs/Qwen_VL/T20260101_G1/Qwen_VL_MMMU_DEV_VAL_openai_result.xlsx"))
        ('Qwen_VL', 'MMMU_DEV_VAL')
    """
    stem = JUDGED.sub("", file.stem)
    for folder in file.parent.parts[::-1]:
        if stem.startswith(f"{folder}_"):
            return folder, stem[len(folder) + 1 :]
    for dataset in sorted(datasets, key=len, reverse=True):
        if stem.endswith(f"_{dataset}"):
            return stem[: -len(dataset) - 1], dataset
    raise SatlightError(
        f"{file}: the name is MODEL_DATASET, but where the model ends is unknown. Put the file into a folder with the "
        "name of the model, as VLMEvalKit does, or DATASET.tsv next to it."
    )


def _rows(file: Path) -> Iterator[Row]:
    """Yield the rows of a table as texts; names of columns in lower case, except the letters of options."""
    if file.suffix.lower() == ".xlsx":
        yield from _xlsx_rows(file)
        return
    separator = "\t" if file.suffix.lower() == ".tsv" else ","
    with readable(file, " as a table"):
        frame = pl.read_csv(file, separator=separator, infer_schema=False)
    yield from frame.rename(_lower).to_dicts()


def _xlsx_rows(file: Path) -> Iterator[Row]:
    try:
        import openpyxl
    except ImportError:
        raise SatlightError(
            f"{file} needs openpyxl, which is not installed: run `pip install 'satlight[xlsx]'`, or save the table as "
            ".tsv."
        ) from None
    try:
        sheet = openpyxl.load_workbook(file, read_only=True, data_only=True).worksheets[0]
        lines = [[_text(cell) for cell in line] for line in sheet.iter_rows(values_only=True)]
    except Exception as error:  # zipfile, XML and openpyxl raise errors of many kinds on damaged files
        raise SatlightError(
            f"{file} cannot be read as .xlsx ({type(error).__name__}: {error}). Write it again."
        ) from error
    names = [_lower(name or "") for name in lines[0]] if lines else []
    for line in lines[1:]:
        yield dict(zip(names, line, strict=True))


def _lower(name: str) -> str:
    return name if name in LETTERS else name.lower()


def _text(cell: object) -> str | None:
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return None if cell is None or cell == "" else str(cell)


def _hit(value: str, where: str) -> float:
    known = {"1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0, "true": 1.0, "false": 0.0}
    if value.strip().lower() not in known:
        raise SatlightError(f"{where}, column 'hit': got {value!r}; 1 or 0 is required, empty = not measured.")
    return known[value.strip().lower()]


def _instruction(key: str, dataset: str, row: Row) -> dict[str, Any]:
    options = [(letter, row[letter]) for letter in LETTERS if row.get(letter)]
    lines = [row.get("hint"), row.get("question"), *(f"{letter}. {text}" for letter, text in options)]
    return {
        "instruction_id": key,
        "dataset": dataset,
        "task": row.get("category") or row.get("l2-category"),
        "instruction": "\n".join(line for line in lines if line),
        "choices": [text for _, text in options] or None,
        "answer": row.get("answer"),
        "index": row["index"],
        "source_split": row.get("split"),
        "images": None,
    }


def _add_images(entries: list[dict[str, Any]], found: _Found, path: Path) -> Counter[str]:
    """Fill in the image files, and count the instructions without, per dataset."""
    missing: Counter[str] = Counter()
    for entry in entries:
        file, by_index = found.datasets.get(entry["dataset"], (path, {}))
        row: Row = by_index.get(entry["index"], {})
        where = f"{file}, index {entry['index']}"
        image = row.get("image")
        if image is not None and len(image) <= REFERENCE:
            image = by_index.get(image, {}).get("image")
        if image:
            entry["images"] = [_stored(one, where) for one in _listed(image)]
        elif row.get("image_path"):
            entry["images"] = [_below(path, file.parent, one, where) for one in _listed(row["image_path"] or "")]
        else:
            missing[entry["dataset"]] += 1
    return missing


def _listed(cell: str) -> list[str]:
    """Return the entries of a cell that is one text or a list of texts as Python writes it."""
    if not cell.startswith("["):
        return [cell]
    try:
        return [str(one) for one in ast.literal_eval(cell)]
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return [cell]


def _stored(image: str, where: str) -> str:
    """Decode an image into the cache, named by its content; return the file."""
    try:
        content = base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SatlightError(f"{where}, column 'image': is no base64 ({error}). Download the dataset again.") from error
    read_image(content, where)  # refuses what is no image
    name = hashlib.blake2b(content, digest_size=16).hexdigest() + (".png" if content[:4] == b"\x89PNG" else ".jpg")
    file = cache_dir() / "vlmevalkit" / name
    if not file.is_file():
        with atomic_path(file) as temporary:
            temporary.write_bytes(content)
    return str(file)


def _below(root: Path, folder: Path, name: str, where: str) -> str:
    """Return the file that ``image_path`` names, which must lie below ``root``."""
    file = (folder / name).resolve()
    if not file.is_relative_to(root.resolve()):
        raise SatlightError(f"{where}, column 'image_path': {name} lies outside of {root}. Copy the images there.")
    return str(file)


def _notes(changed: int, unjudged: int, missing: Counter[str]) -> tuple[str, ...]:
    notes = ["score is the column 'hit' of VLMEvalKit."]
    if changed:
        notes.append(f"{changed} questions whose text or options differ between files were dropped.")
    if unjudged:
        notes.append(f"{unjudged} files with predictions but without the column 'hit' were ignored.")
    for dataset, count in missing.items():
        notes.append(f"{count} instructions of {dataset} have no image: its {dataset}.tsv is missing or has none.")
    return tuple(notes)
