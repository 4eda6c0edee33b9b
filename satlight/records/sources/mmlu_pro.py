"""MMLU-Pro's published answers: ``eval_results/model_outputs_<MODEL>_5shots.zip`` of its repository.

Each archive holds one JSON list of ``{question_id, question, options, answer, category, src, pred, …}``.
The score is 1 if the stored prediction equals the answer, otherwise (also without a prediction) 0.

Reference: Wang et al. 2024, "MMLU-Pro: A More Robust and Challenging Multi-Task Language Understanding
Benchmark", NeurIPS.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import polars as pl

from satlight.errors import SatlightError
from satlight.files import decoded, parse_json, read_json
from satlight.records.dense import build_records
from satlight.records.matrix import PerformanceRecords
from satlight.records.names import listed
from satlight.records.tables import RecordTables, check_instructions, named_candidates

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
NEEDED = {"question_id", "question", "options", "answer"}

Question = tuple[str, tuple[str, ...], str]
"""Text and options with normalized white space, and the correct letter, which must agree between files."""


def read(path: Path | str, score_column: str = "score", models: Path | str | None = None) -> PerformanceRecords:
    """Read MMLU-Pro's archives as a matrix.

    Args:
        path: Folder with the archives (or their extracted JSON files), or one of them.
        score_column: ``"score"``: 1 if the stored prediction equals the answer.
        models: JSON file with details of the candidates, in the format of ``models.json``.

    Returns:
        Records of the questions that are equal in all files; ``task`` is the question's origin, the column
        ``category`` one of 14 subjects. No split: :func:`satlight.records.split_records` draws one.

    Raises:
        SatlightError: No such file, or a file with other content.
    """
    return build_records(tables(path, models), score_column)


def tables(path: Path | str, models: Path | str | None = None) -> RecordTables:
    """Read MMLU-Pro's archives as tables; arguments and errors as for :func:`read`."""
    path = Path(path).expanduser()
    files = sorted([*path.glob("*.zip"), *path.glob("*.json")]) if path.is_dir() else [path]
    if not files:
        raise SatlightError(f"{path} holds no .zip or .json file. Give the folder eval_results of MMLU-Pro.")
    questions: dict[int, dict[str, Any]] = {}
    wordings: dict[int, Question] = {}
    changed: set[int] = set()
    frames, names, strays = [], [], 0
    for file in files:
        name = candidate_name(file.stem)
        if name in names:
            raise SatlightError(f"{path} has two files for the candidate '{name}', one of them {file.name}. Keep one.")
        names.append(name)
        entries, stray = _entries(file)
        strays += stray
        for number, entry in entries.items():
            wording = _wording(entry)
            questions.setdefault(number, entry)
            if wordings.setdefault(number, wording) != wording:
                changed.add(number)
        right = [float(entry.get("pred") == entry["answer"]) for entry in entries.values()]
        ids = pl.Series(list(entries), dtype=pl.Int64)
        frames.append(pl.DataFrame({"question_id": ids, "model_id": [name] * len(ids), "score": right}))
    kept = sorted(number for number in questions if number not in changed)
    if not kept:
        raise SatlightError(f"No question of {path} is the same in all files; are they all MMLU-Pro results?")
    records = pl.concat(frames).filter(pl.col("question_id").is_in(kept))
    return RecordTables(
        instructions=check_instructions(_instructions(kept, questions), str(path)),
        candidates=named_candidates(names, models),
        records=records.select(_id(pl.col("question_id")), "model_id", "score").lazy(),
        name="mmlu_pro",
        file=str(path),
        notes=_notes(len(changed), strays),
    )


def candidate_name(stem: str) -> str:
    """Parse the candidate from a file name.

    Example:
        >>> candidate_name("model_outputs_Yi-34B_5shots")
        'Yi-34B'
    """
    return re.sub(r"_\d+-?shots?$", "", stem.removeprefix("model_outputs_")).strip()


def _entries(file: Path) -> tuple[dict[int, dict[str, Any]], int]:
    """Question number → entry, and the number of list elements that are not entries."""
    rows = _json(file)
    if not isinstance(rows, list):
        raise SatlightError(f"{file} must hold a JSON list of answers.")
    entries: dict[int, dict[str, Any]] = {}
    stray = 0
    for position, row in enumerate(rows):
        if not isinstance(row, dict):
            stray += 1  # some published files contain keys of a summary among their rows
            continue
        where = f"{file}, entry {position} (counting from 0)"
        _check_entry(row, where)
        number = int(row["question_id"])
        if number in entries:
            raise SatlightError(f"{where}: question_id {number} appears twice; keep one answer.")
        entries[number] = {key: value for key, value in row.items() if key != "model_outputs"}
    return entries, stray


def _check_entry(row: dict[str, Any], where: str) -> None:
    """Raise a SatlightError if a field is missing or has another type."""
    if missing := sorted(NEEDED - row.keys()):
        raise SatlightError(f"{where}: lacks {listed(missing)}.")
    number, options = row["question_id"], row["options"]
    if not re.fullmatch(r"\d{1,18}", str(number)) or isinstance(number, float):
        raise SatlightError(f"{where}: got question_id {number!r}; a whole number is required.")
    if not isinstance(options, list) or not all(isinstance(one, str | int | float) for one in options):
        raise SatlightError(f"{where}: got options {options!r}; a list of texts is required.")
    for key in ("question", "answer"):
        if not isinstance(row[key], str):
            raise SatlightError(f"{where}: got {key} {row[key]!r}; text is required.")
    for key in ("src", "category"):
        if not isinstance(row.get(key) or "", str):
            raise SatlightError(f"{where}: got {key} {row[key]!r}; text or null is required.")


def _json(file: Path) -> Any:
    advice = "download it again"
    if file.suffix == ".json":
        return read_json(file, advice)
    try:
        with zipfile.ZipFile(file) as archive:
            members = [name for name in archive.namelist() if _is_answers(name)]
            if len(members) != 1:
                raise SatlightError(f"{file} must hold exactly one .json file; it holds {archive.namelist()}.")
            content = archive.read(members[0])
    except FileNotFoundError:
        raise SatlightError(f"{file} does not exist. Check the path.") from None
    except SatlightError:
        raise
    # zipfile raises RuntimeError for encrypted and NotImplementedError for unknown kinds of archives.
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise SatlightError(f"{file} cannot be read: {error}; {advice}.") from error
    return parse_json(decoded(content, str(file), advice), str(file), advice)


def _is_answers(name: str) -> bool:
    return name.endswith(".json") and not name.startswith("__MACOSX") and not Path(name).name.startswith("._")


def _wording(entry: dict[str, Any]) -> Question:
    def plain(text: object) -> str:
        return " ".join(str(text).split())

    return plain(entry["question"]), tuple(plain(option) for option in entry["options"]), str(entry["answer"])


def _instructions(numbers: list[int], questions: dict[int, dict[str, Any]]) -> pl.DataFrame:
    rows = [questions[number] for number in numbers]
    texts = [
        "\n".join(
            [row["question"], *(f"{letter}. {option}" for letter, option in zip(LETTERS, row["options"], strict=False))]
        )
        for row in rows
    ]
    return pl.DataFrame(
        {
            "question_id": pl.Series(numbers, dtype=pl.Int64),
            "dataset": ["mmlu_pro"] * len(rows),
            "task": pl.Series([row.get("src") or row.get("category") or None for row in rows], dtype=pl.String),
            "instruction": texts,
            "choices": pl.Series([list(map(str, row["options"])) for row in rows], dtype=pl.List(pl.String)),
            "answer": [str(row["answer"]) for row in rows],
            "category": pl.Series([row.get("category") or None for row in rows], dtype=pl.String),
        }
    ).with_columns(_id(pl.col("question_id")))


def _id(number: pl.Expr) -> pl.Expr:
    padded = number.cast(pl.String).str.zfill(5)
    return pl.concat_str([pl.lit("mmlu_pro-"), padded]).alias("instruction_id")


def _notes(changed: int, strays: int) -> tuple[str, ...]:
    notes = ["score is 1 if the stored prediction equals the answer; no prediction counts as 0."]
    if changed:
        notes.append(f"{changed} questions whose text, options or answer differ between files were dropped.")
    if strays:
        notes.append(f"{strays} elements that are not answers were ignored.")
    return tuple(notes)
