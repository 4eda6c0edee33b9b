r"""MATH-V's published answers: the questions, their images and one JSONL file per model.

In its repository, ``data/test.jsonl`` holds ``id``, ``question``, ``options``, ``answer`` (a letter where there are
options), ``image``, ``level`` and ``subject``; ``outputs/**/MODEL.jsonl`` holds ``id``, ``response`` and, after its
evaluation, ``model_answer`` and ``correct``.

Reference: Wang et al. 2024, "Measuring Multimodal Mathematical Reasoning with MATH-Vision Dataset", NeurIPS; format
read at commit 1d361180b02cbff417c77c02acf1b4cacf2d55ea (MIT).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import polars as pl

from satlight.errors import SatlightError
from satlight.files import read_jsonl
from satlight.records.dense import build_records
from satlight.records.matrix import PerformanceRecords
from satlight.records.names import listed
from satlight.records.tables import RecordTables, check_instructions, named_candidates, with_images

QUESTIONS = ("data/test.jsonl", "test.jsonl", "question.jsonl", "data/testmini.jsonl", "testmini.jsonl")
"""Files of the questions, of which the first that exists is read."""

QUESTION_TYPES = {
    **{key: (str,) for key in ("question", "image", "subject")},
    "id": (str, int),
    "answer": (str, int, float),
    "options": (list,),
    "level": (int,),
}
"""Types of the values of a question; all but ``id``, ``question`` and ``answer`` may be missing or null."""

NO_MODELS = ("Random-Chance",)
"""Files that hold no answers of a model."""

ADVICE = "give the folder of the MATH-V repository"
LETTERS = "ABCDEFGHIJ"
TOLERANCE = 0.005
"""Numbers that are closer are equal: answers are rounded to two decimals."""

_BOXED = re.compile(r"boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_SAID = re.compile(r"(?i)answer\s+(?:is|should\s+be)\s*:?\s*(.+?)(?:\.\s|\.?$)", re.MULTILINE)
_LETTER = re.compile(r"\(?([A-J])\)?(?:[.:,)\s].*)?", re.DOTALL)
_WRAPPER = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox|left|right|displaystyle)\b")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}")


def read(path: Path | str, score_column: str = "score", models: Path | str | None = None) -> PerformanceRecords:
    """Read MATH-V's answers as a matrix.

    Args:
        path: Folder of the repository: one of :data:`QUESTIONS`, the images and the answers, at any depth.
        score_column: ``"score"``: ``correct`` of the file where it has that, else ``"matched"``; ``"matched"``: the
            response is right by :func:`is_right`.
        models: JSON file with details of the candidates, in the format of ``models.json``.

    Returns:
        Records; ``task`` is the subject. No split.

    Raises:
        SatlightError: No questions, no answers, or a file with other content.
    """
    return build_records(tables(path, models), score_column)


def tables(path: Path | str, models: Path | str | None = None) -> RecordTables:
    """Read MATH-V's answers as tables; arguments and errors as for :func:`read`."""
    path = Path(path).expanduser()
    source = next((path / name for name in QUESTIONS if (path / name).is_file()), None)
    if source is None:
        raise SatlightError(f"{path} holds none of {listed(QUESTIONS)}; {ADVICE}.")
    questions = {str(row["id"]): row for row in _rows(source, ("id", "question", "answer"), QUESTION_TYPES)}
    questions_files = {(path / name).resolve() for name in QUESTIONS}
    files = [file for file in sorted(path.rglob("*.jsonl")) if file.resolve() not in questions_files]
    files = [file for file in files if file.stem not in NO_MODELS]
    if not files:
        raise SatlightError(f"{path} holds no answers (.jsonl) besides its questions; {ADVICE}.")
    records: list[tuple[str, str, float, float]] = []
    strays, agreed, judged = 0, 0, 0
    for file in files:
        if any(file.stem == other.stem for other in files if other is not file):
            raise SatlightError(f"{path} has two files for the candidate '{file.stem}'. Keep one.")
        for row in _rows(file, ("id", "response"), {"id": (str, int)}):
            question = questions.get(str(row["id"]))
            if question is None:
                strays += 1
                continue
            matched = float(is_right(str(row["response"]), str(question["answer"]), question.get("options") or []))
            given = row.get("correct")
            if isinstance(given, bool):
                judged, agreed = judged + 1, agreed + (matched == given)
            score = float(given) if isinstance(given, bool) else matched
            records.append((f"mathv-{row['id']}", file.stem, score, matched))
    schema = ["instruction_id", "model_id", "score", "matched"]
    return RecordTables(
        instructions=_instructions(list(questions.values()), path, source),
        candidates=named_candidates([file.stem for file in files], models),
        records=pl.DataFrame(records, schema=schema, orient="row").lazy(),
        name="mathv",
        file=str(path),
        notes=_notes(len(records), judged, agreed, strays),
    )


def _rows(file: Path, needed: tuple[str, ...], types: Mapping[str, tuple[type, ...]]) -> list[dict[str, Any]]:
    rows = []
    for line, row in read_jsonl(file, ADVICE):
        if not isinstance(row, dict) or not set(needed) <= row.keys():
            raise SatlightError(f"{file}, line {line}: an object with {listed(needed)} is required; {ADVICE}.")
        for key, allowed in types.items():
            value = row.get(key)
            if (value is not None or key in needed) and type(value) not in allowed:
                names = listed([one.__name__ for one in allowed])
                raise SatlightError(
                    f"{file}, line {line}: '{key}' is {value!r:.80}; its type must be {names}; {ADVICE}."
                )
        rows.append(row)
    return rows


def _instructions(rows: list[dict[str, Any]], path: Path, source: Path) -> pl.DataFrame:
    options = [[str(one) for one in row.get("options") or []] for row in rows]
    texts = [
        "\n".join([str(row["question"]), *(f"{letter}. {one}" for letter, one in zip(LETTERS, own, strict=False))])
        for row, own in zip(rows, options, strict=True)
    ]
    frame = pl.DataFrame(
        {
            "instruction_id": [f"mathv-{row['id']}" for row in rows],
            "dataset": ["mathv"] * len(rows),
            "task": pl.Series([row.get("subject") for row in rows], dtype=pl.String),
            "instruction": texts,
            "choices": pl.Series([own or None for own in options], dtype=pl.List(pl.String)),
            "answer": [str(row["answer"]) for row in rows],
            "level": pl.Series([str(row.get("level") or "") for row in rows]).cast(pl.Int64, strict=False),
            "image": pl.Series([row.get("image") for row in rows], dtype=pl.String),
        }
    )
    return with_images(check_instructions(frame, str(source)), path, str(source))


def is_right(response: str, answer: str, options: list[str]) -> bool:
    r"""Return whether a response gives the answer: the letter of the option, its text, or the same number.

    Args:
        response: What the model wrote.
        answer: The right answer; with options a letter.
        options: Texts of the options, maybe none.

    Example:
        >>> is_right(r"So the answer is \boxed{C}.", "C", ["1", "2", "3"])
        True
        >>> is_right(r"\boxed{\frac{1}{2}}", "0.5", []), is_right("(C) 2:30", "B", ["2:00", "2:15", "2:30"])
        (True, False)
    """
    found = final_answer(response)
    value = options[LETTERS.index(answer)] if answer in LETTERS[: len(options)] else None
    if options and (letter := _LETTER.fullmatch(found)) is not None:
        return letter[1] == answer
    return _same(found, answer) or (value is not None and _same(found, value))


def final_answer(response: str) -> str:
    r"""Return the part of a response that states the answer: the last box, else what follows "answer is", else all.

    Example:
        >>> final_answer(r"It is \boxed{12}."), final_answer("Count them. The answer is: 4"), final_answer("7.")
        ('12', '4', '7')
    """
    text = response.strip()
    for pattern in (_BOXED, _SAID):
        if stated := pattern.findall(text):
            text = stated[-1]
            break
    text = _FRACTION.sub(r"\1/\2", text)
    return _WRAPPER.sub("", text).replace("$", "").replace("{", "").replace("}", "").strip().rstrip(".").strip()


def _same(one: str, other: str) -> bool:
    one, other = _plain(one), _plain(other)
    if not one or not other:
        return False
    numbers = _number(one), _number(other)
    if numbers[0] is not None and numbers[1] is not None:
        return abs(numbers[0] - numbers[1]) < TOLERANCE
    return one == other


def _plain(text: str) -> str:
    text = _WRAPPER.sub("", _FRACTION.sub(r"\1/\2", text)).lower().split("=")[-1]
    return re.sub(r"[\s$,{}]|\\[,;!~ ]|\^?\\circ|\\?%|°", "", text).strip(".")


def _number(text: str) -> float | None:
    """Return the number that a text is, else None."""
    if match := re.fullmatch(r"(-?\d{1,100})/(\d{1,100})", text):
        return float(Fraction(int(match[1]), int(match[2]))) if int(match[2]) else None
    return float(text) if re.fullmatch(r"-?(\d+\.?\d*|\.\d+)", text) else None


def _notes(total: int, judged: int, agreed: int, strays: int) -> tuple[str, ...]:
    notes = [f"score is the published 'correct' of {judged} answers, and satlight's matching of {total - judged}."]
    if judged:
        notes.append(f"satlight's matching (column 'matched') agrees with {agreed} of {judged} published values.")
    if strays:
        notes.append(f"{strays} answers to questions that are not in the file were ignored.")
    return tuple(notes)
