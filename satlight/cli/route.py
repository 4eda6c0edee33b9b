"""``satlight route``: the trained router on the command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from satlight.cli.startup import without_garbage_collection
from satlight.errors import SatlightError

if TYPE_CHECKING:
    from satlight.types import Ranking


def add_parser(subparsers: Any) -> None:
    """Add the verb to the satlight command."""
    route = subparsers.add_parser(
        "route",
        help="rank the candidates for an instruction",
        description="Rank the candidates for one instruction, for a JSONL file of them, or for lines on "
        "standard input.",
    )
    route.add_argument("instruction", nargs="?", help="the instruction; `-` or nothing reads standard input")
    route.add_argument("--router", required=True, metavar="DIR", help="folder of an exported router")
    route.add_argument(
        "--file", type=Path, metavar="JSONL", help='one {"instruction": ...} a line; other keys are kept'
    )
    route.add_argument("--top-k", type=int, metavar="K", help="show the first K candidates only")
    route.add_argument("--candidates", metavar="A,B", help="choose among these candidates only")
    route.add_argument("--format", choices=("table", "json"), help="default: table on a terminal, JSON lines otherwise")
    route.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module whose classes the router folder may use, besides satlight's own; may be repeated",
    )
    route.add_argument("--batch-size", type=int, default=32, help="instructions scored at once (default 32)")
    route.set_defaults(run=run_route)


def run_route(args: argparse.Namespace) -> None:
    """Route and print."""
    if args.file is not None and args.instruction is not None:
        raise SatlightError("Give an instruction or --file, not both")
    with without_garbage_collection():
        from satlight.records.names import split_names
        from satlight.routers import Router

        router = Router.from_pretrained(args.router, allow=args.allow)
    candidates = split_names(args.candidates, router.model_ids) if args.candidates else None
    style = args.format or ("table" if sys.stdout.isatty() else "json")
    for batch in _batches(_requests(args), args.batch_size):
        texts = [request["instruction"] for request in batch]
        rankings = router.route(texts, candidates=candidates, top_k=args.top_k)
        for request, ranking in zip(batch, rankings, strict=True):
            if style == "json":
                print(json.dumps(request | ranking.to_dict(), ensure_ascii=False), flush=True)
            else:
                _print_table(request["instruction"], ranking)


def _requests(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    if args.file is not None:
        if not args.file.is_file():
            raise SatlightError(f"--file {args.file}: there is no such file")
        with args.file.open(encoding="utf-8") as lines:
            yield from (_request(line, f"{args.file}, line {n}") for n, line in enumerate(lines, 1) if line.strip())
    elif args.instruction in (None, "-"):
        for n, line in enumerate(sys.stdin, 1):
            if line.strip():
                is_json = line.lstrip().startswith("{")
                yield (_request(line, f"standard input, line {n}") if is_json else {"instruction": line.rstrip("\n")})
    elif not args.instruction.strip():
        raise SatlightError("The instruction is empty")
    else:
        yield {"instruction": args.instruction}


def _request(line: str, where: str) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except ValueError as error:
        raise SatlightError(f"{where}: not JSON ({error}); each line is an object with a key 'instruction'") from error
    text = request.get("instruction") if isinstance(request, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise SatlightError(f"{where}: 'instruction' must be a text that is not empty, got {text!r}")
    return request


def _batches(requests: Iterator[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for request in requests:
        batch.append(request)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _print_table(instruction: str, ranking: Ranking) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(instruction[:200]), title_justify="left")
    table.add_column("", justify="right")
    table.add_column("candidate")
    table.add_column("probability", justify="right")
    table.add_column("score", justify="right")
    for place, choice in enumerate(ranking.choices, 1):
        table.add_row(str(place), choice.model_id, f"{100 * choice.probability:.1f} %", f"{choice.score:+.2f}")
    Console().print(table)
