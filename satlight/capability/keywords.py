"""Keywords of a core task: from a table, or else derived from the task's name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from satlight.errors import SatlightError
from satlight.files import parse_json, parse_yaml, read_text

KNOWN_KEYWORDS = {
    "arc_challenge": "science exam, hard questions, reasoning, physics, biology",
    "arc_easy": "science exam, easy questions, nature, physics, biology",
    "boolq": "yes or no questions, reading comprehension, passages",
    "ceval": "Chinese exam questions, Chinese language, school subjects",
    "cmmlu": "Chinese exam questions, Chinese language, culture, knowledge",
    "gsm8k": "grade school mathematics, word problems, arithmetic, steps",
    "hellaswag": "common sense, everyday situations, sentence completion",
    "humaneval": "Python programming, code writing, functions, docstrings",
    "javascript": "JavaScript programming, code writing, functions",
    "math_prealgebra": "prealgebra, fractions, equations, number sense",
    "mbpp": "Python programming, short programs, code writing",
    "mmlu": "academic subjects, general knowledge, exam questions",
    "mnli": "natural language inference, entailment, contradiction",
    "mrpc": "paraphrase, sentence pairs, same meaning",
    "truthfulqa": "truthfulness, misconceptions, myths, facts",
    "winogrande": "pronouns, common sense, coreference",
    "scibench_atkins": "physical chemistry, thermodynamics, quantum chemistry",
    "scibench_chemmc": "quantum chemistry, molecules, physical chemistry",
    "scibench_class": "classical mechanics, dynamics, physics",
    "scibench_diff": "differential equations, calculus",
    "scibench_fund": "fundamentals of physics, mechanics, electricity",
    "scibench_matter": "physical chemistry, matter, quantum theory",
    "scibench_quan": "quantum chemistry, spectroscopy",
    "scibench_stat": "probability, statistics, inference",
    "scibench_thermo": "thermodynamics, kinetics, heat",
    "theoremqa_eecs": "electrical engineering, computer science, signals",
}
"""Keywords for well-known benchmarks whose short names are not self-explanatory."""

_PREFIX = re.compile(r"^(ori_mmlu|mmlu_pro|mmlu|stemez|scibench|theoremqa|hendryckstest|bbh)[-_:/]+", re.IGNORECASE)


def task_keywords(task: str, dataset: str = "", table: Mapping[str, str] | None = None) -> str:
    """Return the keywords that represent a task in a capability representation.

    Sources in order: ``table``, :data:`KNOWN_KEYWORDS`, the words of the task's name.

    Args:
        task: Task name of the records, e.g. ``"ori_mmlu-high_school_statistics"``.
        dataset: Its dataset; a prefix of that name is dropped.
        table: Task name to keywords; takes precedence.

    Returns:
        Words separated by commas or spaces, never empty.

    Example:
        >>> task_keywords("ori_mmlu-high_school_statistics"), task_keywords("stemez-FluidMechanics")
        ('high school statistics', 'fluid mechanics')
    """
    if table and task in table:
        return table[task]
    known = re.sub(r"[-_:/ ]+", "_", task).lower()
    if known in KNOWN_KEYWORDS:
        return KNOWN_KEYWORDS[known]
    name = _PREFIX.sub("", task)
    if name == task and dataset:
        name = re.sub(rf"^{re.escape(dataset)}[-_:/ ]+(?=.)", "", task, flags=re.IGNORECASE)
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", re.sub(r"[-_:/\s]+", " ", name)).split()
    plain = " ".join(word if word.isupper() else word.lower() for word in words)
    return plain or dataset or task


def load_keywords(path: Path | str) -> dict[str, str]:
    """Read a table of task keywords.

    Args:
        path: JSON (``.json``) or YAML (``.yaml``, ``.yml``) file that maps each task name to its keywords, as
            one text or a list of texts. Tasks that are not named keep the keywords derived from their name.

    Returns:
        Task name to keywords.

    Raises:
        SatlightError: No such file, not a mapping, or a value that is neither text nor a list of texts.
    """
    path = Path(path).expanduser()
    advice = "give a JSON or YAML file that maps task names to keywords"
    text = read_text(path, advice)
    content = (parse_json if path.suffix == ".json" else parse_yaml)(text, str(path), advice)
    if not isinstance(content, dict):
        raise SatlightError(
            f"The keyword table {path} holds a {type(content).__name__}; it must map task names to keywords, "
            'e.g. {"gsm8k": ["arithmetic", "word problems"]}.'
        )
    table = {}
    for task, value in content.items():
        parts = value if isinstance(value, list) else [value]
        if not parts or not all(isinstance(part, str) and part.strip() for part in parts):
            raise SatlightError(
                f"The keyword table {path} gives {value!r} for the task '{task}'; "
                "allowed: a text, or a list of texts, none of them empty."
            )
        table[str(task)] = ", ".join(" ".join(part.split()) for part in parts)
    return table
