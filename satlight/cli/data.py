"""``satlight data import | describe | validate | rotate | refine``: manage performance records."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from satlight.errors import SatlightError
from satlight.records.sources import SOURCES

if TYPE_CHECKING:
    from satlight.records.matrix import PerformanceRecords


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the verb ``data`` to the ``satlight`` command.

    Args:
        subparsers: Result of ``ArgumentParser.add_subparsers()``.

    Returns:
        The parser; a parsed namespace has the function to call as ``run``.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> _ = add_parser(parser.add_subparsers())
        >>> parser.parse_args(["data", "describe", "simulated"]).records
        'simulated'
    """
    parser = subparsers.add_parser("data", help="import, describe, validate or refine performance records")
    verbs = parser.add_subparsers(dest="data_verb", required=True, metavar="import|describe|validate|rotate|refine")

    _add_import(verbs)

    verb = verbs.add_parser("describe", help="print counts, best single candidate and oracle per dataset")
    _add_choice(verb)
    verb.add_argument("--json", action="store_true", help="print JSON instead of tables")
    verb.add_argument(
        "--clusters", action="store_true", help="also show the clusters that `fit` uses as tasks where there are none"
    )
    verb.set_defaults(run=run_describe)

    verb = verbs.add_parser("validate", help="check a records folder and show its splits")
    _add_choice(verb)
    verb.add_argument("--group-column", help="column of groups that stay in one split")
    verb.set_defaults(run=run_validate)

    verb = verbs.add_parser("rotate", help="add rotations of hard multiple-choice instructions")
    _add_choice(verb)
    _add_target(verb)
    verb.add_argument(
        "--circle-share",
        type=float,
        default=0.3,
        metavar="SHARE",
        help="maximum mean outcome of the candidates on a hard instruction (default: 0.3)",
    )
    verb.set_defaults(run=run_rotate)

    verb = verbs.add_parser("refine", help="write records with refined training rows")
    _add_choice(verb)
    _add_target(verb)
    verb.add_argument("--circle-share", type=float, metavar="SHARE", help="circle test up to this mean outcome")
    verb.add_argument("--near-duplicates", type=float, metavar="SIMILARITY", help="1 = equal texts only")
    verb.add_argument("--max-per-dataset", type=int, metavar="N", help="maximum training rows per dataset")
    verb.add_argument("--seed", type=int, default=0, help="seed of validation draw and cap (default: 0)")
    verb.set_defaults(run=run_refine)
    return parser


def _add_import(verbs: Any) -> None:
    verb = verbs.add_parser("import", help="turn published or logged results into a records folder")
    verb.add_argument("path", type=Path, help="file or folder to read")
    verb.add_argument("--from", dest="format", required=True, choices=sorted(SOURCES), help="format of PATH")
    verb.add_argument("--to", required=True, type=Path, metavar="DIR", help="records folder to create")
    verb.add_argument("--name", help="name of the records in tables (default: the source's)")
    verb.add_argument("--models", type=Path, metavar="JSON", help="details of the candidates (models.json format)")
    verb.add_argument("--metric", action="append", help="lm-eval: metric that becomes the score, repeatable")
    verb.add_argument(
        "--text-field",
        action="append",
        metavar="[TASK:]FIELD",
        help="lm-eval: field of the instruction (of one task), repeatable",
    )
    verb.add_argument("--score-column", action="append", metavar="NAME", help="csv: further score column, repeatable")
    verb.add_argument(
        "--columns", nargs="+", metavar="NAME=COLUMN", help="csv: names in the file, e.g. dataset=team,cost_usd=cost"
    )
    verb.add_argument(
        "--repeats",
        choices=("mean", "first", "error"),
        help="csv: several rows of one instruction and candidate (default: mean)",
    )
    verb.add_argument("--force", action="store_true", help="replace a records folder at DIR")
    verb.set_defaults(run=run_import)


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("records", help="records folder, .csv or .jsonl file, 'simulated' or 'simulated-multimodal'")
    parser.add_argument("--score-column", default="score", help="column of the outcomes (default: score)")
    parser.add_argument("--split-column", default="split", help="column of the splits (default: split)")
    parser.add_argument("--candidates", nargs="+", metavar="NAME", help="names or patterns to keep")
    parser.add_argument("--datasets", nargs="+", metavar="NAME", help="names or patterns to keep")


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", required=True, type=Path, metavar="DIR", help="records folder to create")
    parser.add_argument("--group-column", help="column of groups that stay in one split")
    parser.add_argument("--force", action="store_true", help="replace a records folder at DIR")


def _require_free(args: argparse.Namespace) -> None:
    if args.to.exists() and not args.force and (not args.to.is_dir() or any(args.to.iterdir())):
        raise SatlightError(f"{args.to} exists. Choose another folder, or add --force to replace these records.")


def _open(args: argparse.Namespace) -> PerformanceRecords:
    from satlight.records import open_records, use_split

    records = open_records(
        args.records, score_column=args.score_column, candidates=args.candidates, datasets=args.datasets
    )
    return use_split(records, args.split_column)


def run_import(args: argparse.Namespace) -> None:
    """Read and check ``args.path``, write the folder ``args.to`` and print a summary."""
    from rich.console import Console

    from satlight.records.dense import build_records
    from satlight.records.folder import save_tables
    from satlight.records.sources import source

    options = _import_options(args)
    _require_free(args)
    tables = source(args.format).tables(args.path, **options)
    tables.name = args.name or tables.name
    records = build_records(tables)  # check every cell before writing
    save_tables(tables, args.to)
    console = Console()
    _print_records(console, records)
    for note in tables.notes:
        console.print(f"- {note}", markup=False)
    others = [name for name in tables.score_columns() if name != "score"]
    if others:
        console.print(f"Other score columns (--data.score_column): {', '.join(others)}", markup=False)
    console.print(f"Written to {args.to}", markup=False)


def _import_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of the source.

    Raises:
        SatlightError: An option that the source lacks.
    """
    options: dict[str, Any] = {"models": args.models}
    for key, flag, value, owner in (
        ("metrics", "--metric", args.metric, "lm-eval"),
        ("text_fields", "--text-field", args.text_field, "lm-eval"),
        ("score_columns", "--score-column", args.score_column, "csv"),
        ("columns", "--columns", _column_names(args.columns or []), "csv"),
        ("repeats", "--repeats", args.repeats, "csv"),
    ):
        if value and args.format != owner:
            raise SatlightError(f"{flag} belongs to --from {owner}; {args.format} has no such option. Remove it.")
        if value:
            options[key] = value
    return options


def _column_names(pairs: list[str]) -> dict[str, str]:
    """Return standard name → name in the file from ``NAME=COLUMN,NAME=COLUMN``."""
    columns: dict[str, str] = {}
    for pair in (one for text in pairs for one in (text.split(",") if text.count("=") > 1 else [text])):
        name, equals, column = (part.strip() for part in pair.partition("="))
        if not name or not equals or not column or name in columns:
            raise SatlightError(f"--columns {pair}: write NAME=COLUMN with each NAME once, e.g. dataset=team.")
        columns[name] = column
    return columns


def run_describe(args: argparse.Namespace) -> None:
    """Print a summary of ``args.records`` per dataset and per candidate."""
    records = _open(args)
    clusters = _cluster_lines(records) if args.clusters else []
    if args.json:
        about = {
            "name": records.name,
            "simulated": records.simulated,
            "score_column": records.score_column,
            "instructions": records.shape[0],
            "fingerprint": records.fingerprint,
            "candidates": _candidate_lines(records),
            "datasets": _without_nan(records.describe()),
        }
        if args.clusters:
            about["clusters"] = clusters
        print(json.dumps(about, indent=1, ensure_ascii=False))
        return
    import numpy as np
    from rich.console import Console

    from satlight.capability.clusters import lacks_tasks
    from satlight.costs import prompt_tokens

    console = Console()
    _print_records(console, records)
    _print_table(console, "Candidates", _candidate_lines(records))
    if clusters:
        _print_table(console, "Clusters of the train instructions (TF-IDF)", clusters)
    median, most = np.quantile(prompt_tokens(records.texts), [0.5, 0.9])
    console.print(f"length of the instructions in tokens, estimated: median {median:.0f}, 90 % up to {most:.0f}")
    console.print(f"score column: {records.score_column}, fingerprint: {records.fingerprint}", markup=False)
    if not args.clusters and lacks_tasks(records):
        console.print("The records have no tasks; `fit` uses clusters of the instructions, shown with --clusters.")


def _cluster_lines(records: PerformanceRecords) -> list[dict[str, Any]]:
    """Return the clusters that serve as tasks with the default options; none where the records have tasks."""
    from satlight.capability.clusters import cluster_tasks
    from satlight.records.split import split_records

    _, clusters = cluster_tasks(records.with_splits(split_records(records)))
    return [{"cluster": one.name, "train": one.train} for one in clusters]


def run_validate(args: argparse.Namespace) -> None:
    """Check all cells, images and splits of ``args.records``."""
    from collections import Counter

    from rich.console import Console

    from satlight.records.split import split_records

    records = _open(args)
    _require_images(records)
    split = split_records(records, group_column=args.group_column)
    counts = Counter(split.tolist())
    console = Console()
    console.print(f"{records!r} is valid.", markup=False)
    console.print("Split: " + ", ".join(f"{counts[name]} {name}" for name in sorted(counts)), markup=False)
    if counts["dropped"]:
        console.print(
            f"{counts['dropped']} rows repeat a text or group of another split, or are rotations of another "
            "row, and will be ignored."
        )
    if not counts["test"]:
        console.print("There are no test rows; mark some in the column 'split', or remove it, and they are drawn.")


def run_rotate(args: argparse.Namespace) -> None:
    """Write ``args.records`` with rotations of its hard instructions, without outcomes for these."""
    from rich.console import Console

    from satlight.records import save_records
    from satlight.records.rotation import rotate_records

    _require_free(args)
    rotated, notes = rotate_records(_open(args), args.circle_share, args.group_column)
    save_records(rotated, args.to)
    console = Console()
    for note in notes:
        console.print(f"- {note}", markup=False)
    console.print(
        f"Written to {args.to}. Let the candidates answer the rows of instructions.parquet that have a "
        "rotation_of, add the outcomes to records.parquet, then set circle_share.",
        markup=False,
    )


def run_refine(args: argparse.Namespace) -> None:
    """Write ``args.records`` with splits and refined training rows."""
    import numpy as np
    from rich.console import Console

    from satlight.records import save_records, split_records
    from satlight.records.refine import Refinement

    _require_free(args)
    refinement = Refinement(args.circle_share, args.near_duplicates, args.max_per_dataset)
    if refinement == Refinement():
        raise SatlightError("Nothing to refine: give --circle-share, --near-duplicates or --max-per-dataset.")
    records = _open(args)
    split = split_records(records, group_column=args.group_column, seed=args.seed)
    records = records.with_splits(split)
    refined, keep = refinement.apply(records, split == "train", seed=args.seed)
    refined = refined.rows(keep | np.isin(split, ["validation", "test"]))
    save_records(refined, args.to)
    console = Console()
    _print_records(console, refined)
    console.print(f"Written to {args.to}", markup=False)


def _require_images(records: PerformanceRecords) -> None:
    images = list(dict.fromkeys(image for own in records.images for image in own))
    missing = [image for image in images if not Path(image).is_file()]
    if missing:
        raise SatlightError(
            f"{len(missing)} of {len(images)} images of '{records.name}' do not exist, the first is "
            f"{missing[0]}. Paths are relative to the records folder; copy the images there."
        )


def _candidate_lines(records: PerformanceRecords) -> list[dict[str, Any]]:
    import numpy as np

    right, count = np.zeros(records.shape[1]), np.zeros(records.shape[1])
    for rows in records.row_chunks():
        right += records.outcomes[rows].sum(0, dtype=np.float64)
        count += records.known[rows].sum(0)
    return [
        {
            "candidate": one.model_id,
            "params_b": one.params_b,
            "release_date": one.release_date,
            "records": int(count[column]),
            "mean": float(right[column] / count[column]) if count[column] else None,
        }
        for column, one in enumerate(records.candidates)
    ]


def _without_nan(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Replace NaN, which JSON lacks, by null."""
    return [{key: None if value != value else value for key, value in line.items()} for line in lines]


def _print_records(console: Any, records: PerformanceRecords) -> None:
    lines = records.describe()
    empty = [name for name in ("validation", "test", "dropped") if not any(line[name] for line in lines)]
    incomplete = any(line["compared"] < 1 for line in lines)
    empty += [] if incomplete else ["compared"]
    lines = [{key: value for key, value in line.items() if key not in empty} for line in lines]
    for line in lines:  # widest column last
        line["best_single"] = line.pop("best_single") or "–"
    label = " (simulated)" if records.simulated and not records.name.startswith("simulated") else ""
    size = f"{records.shape[0]} instructions × {records.shape[1]} candidates"
    title = f"{records.name}{label}: {size} (shares and means in %)"
    _print_table(console, title, lines)
    if incomplete:
        console.print("compared: share of the instructions, answered by the best single, that the means are over")


HEADINGS = {"instructions": "n", "best_single_mean": "best", "params_b": "billion", "release_date": "released"}


def _print_table(console: Any, title: str, lines: list[dict[str, Any]]) -> None:
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for key, value in lines[0].items():
        text = isinstance(value, str)
        fold = key in ("candidate", "best_single", "cluster")  # fold long names, never numbers
        heading = HEADINGS.get(key, key.replace("_", " "))
        table.add_column(heading, justify="left" if text else "right", no_wrap=not fold, overflow="fold")
    for line in lines:
        table.add_row(*(Text(_shown(key, value)) for key, value in line.items()))
    console.print(table)


def _shown(key: str, value: Any) -> str:
    if value is None or value != value:
        return "–"
    if key == "params_b":
        return f"{value:g}"
    return f"{value:.2%}".rstrip("%") if isinstance(value, float) else str(value)
