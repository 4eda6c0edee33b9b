"""``satlight route``: the trained router on the command line."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from satlight.cli.startup import without_garbage_collection
from satlight.cli.streaming import arriving
from satlight.errors import SatlightError
from satlight.files import decoded, parse_json
from satlight.types import Request

if TYPE_CHECKING:
    from satlight.types import Ranking


@dataclass(frozen=True)
class Asked:
    """A request, and the row that is printed with its ranking.

    Args:
        request: What the router reads.
        row: A JSON object with the key ``instruction``.
    """

    request: Request
    row: dict[str, Any]


Item = Asked | SatlightError
"""A request, or why there is none."""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the satlight command."""
    route = subparsers.add_parser(
        "route",
        help="rank the candidates for an instruction",
        description="Rank the candidates for one instruction, for those of a file, or for those on standard input.",
    )
    route.add_argument("instruction", nargs="?", help="the instruction; `-` or nothing reads standard input")
    route.add_argument("--router", required=True, metavar="DIR", help="folder of an exported router, or owner/name")
    route.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="FILE",
        help="an image that belongs to the instruction, a file or a data: URL; may be repeated, in the order in which "
        "the text refers to them",
    )
    route.add_argument("--file", type=user_path, metavar="FILE", help="instructions, see --input-format")
    route.add_argument(
        "--input-format",
        choices=("lines", "text", "jsonl"),
        help="lines: an instruction per line (default on standard input); text: all of it is one instruction; "
        'jsonl: an object {"instruction": ..., "images": [...]} per line, other keys are kept (default of --file); '
        "paths of images are relative to the folder of the file",
    )
    route.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="what to do at a line that cannot be read: stop after the lines before it (default), or skip it and "
        "exit with code 1 in the end",
    )
    route.add_argument("--top-k", type=int, metavar="K", help="show the first K candidates only")
    add_candidates_option(route)
    add_rule_option(route)
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


def add_candidates_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--candidates``; :func:`candidate_names` reads it."""
    parser.add_argument(
        "--candidates",
        action="append",
        metavar="A,B",
        help="choose among these candidates only; may be repeated, for names with commas",
    )


def add_rule_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--rule``; :func:`satlight.rules.parse_rule` reads it."""
    parser.add_argument(
        "--rule",
        metavar="RULE",
        help="best, cheapest@PROBABILITY, budget@USD or utility@WEIGHT (default: the rule saved in the router folder)",
    )


def user_path(text: str) -> Path:
    """Return a path of the command line; ``~`` is the home folder."""
    return Path(os.path.expanduser(text))


def candidate_names(given: Sequence[str] | None, known: Sequence[str]) -> list[str] | None:
    """Return the names in the values of ``--candidates``, each one name or several with commas between them.

    Example:
        >>> candidate_names(["a,b", "c, d"], known=["a,b", "c", "d"])
        ['a,b', 'c', 'd']
    """
    if given is None:
        return None
    from satlight.records.names import split_names

    return list(dict.fromkeys(name for value in given for name in split_names(value, known)))


def check_batch_size(size: int) -> None:
    """Raise unless ``--batch-size`` is at least 1."""
    if size < 1:
        raise SatlightError(f"--batch-size is {size}; it must be 1 or more")


def run_route(args: argparse.Namespace) -> None:
    """Route and print."""
    if args.file is not None and args.instruction is not None:
        raise SatlightError("Give an instruction or --file, not both")
    check_batch_size(args.batch_size)
    form = args.input_format or ("lines" if args.file is None else "jsonl")
    if args.image and args.instruction in (None, "-") and form != "text":
        raise SatlightError(
            "--image belongs to one instruction; give the instruction as an argument, or as --input-format text. In "
            'JSON lines, each object names its own: {"instruction": "...", "images": ["a.png"]}'
        )
    if args.file is not None and not args.file.is_file():
        raise SatlightError(f"--file {args.file}: there is no such file")
    with without_garbage_collection():
        from satlight.routers import Router

        router = Router.from_pretrained(args.router, allow=args.allow)
    candidates = candidate_names(args.candidates, router.model_ids)
    rule = router.rule_for(args.rule)
    show = _print_table if (args.format or ("table" if sys.stdout.isatty() else "json")) == "table" else _print_json
    skipped = 0
    items = (_checked(item, where, router.check_images) for where, item in _items(args, form))
    if args.file is None:
        groups: Iterable[list[Item]] = arriving(items, args.batch_size)
    else:
        groups = _groups(_with_progress(items, args), args.batch_size)
    for batch, error in _batches(groups):
        rankings = router.route([asked.request for asked in batch], candidates, args.top_k, rule)
        for asked, ranking in zip(batch, rankings, strict=True):
            show(asked, ranking)
        if error is not None:
            if args.on_error == "stop":
                raise error
            print(f"skipped: {error}", file=sys.stderr)
            skipped += 1
    if skipped:
        raise SatlightError(f"{skipped} of the lines could not be read and were skipped; all others were routed")


# -- reading -----------------------------------------------------------------------------------------------


def _items(args: argparse.Namespace, form: str) -> Iterator[tuple[str, Item]]:
    """Yield what there is to route, and where it comes from."""
    if args.file is None and args.instruction not in (None, "-"):
        yield "the command line", _instruction(args.instruction, args.image)
        return
    source = "standard input" if args.file is None else str(args.file)
    folder = Path() if args.file is None else args.file.parent
    with _opened(args.file) as stream:
        if form == "text":
            text = decoded(stream.read(), source, "give one instruction in UTF-8").removesuffix("\n")
            yield source, _instruction(text, args.image)
            return
        for number, line in _lines(stream, source):
            where = f"{source}, line {number}"
            if isinstance(line, SatlightError):
                yield where, line
            elif line.strip() and form == "jsonl":
                yield where, read_row(line, folder, where)
            elif line.strip():
                if args.input_format is None and number == 1 and line.startswith('{"'):
                    print("Reading each line as an instruction; for JSON, add --input-format jsonl", file=sys.stderr)
                yield where, Asked(Request(line), {"instruction": line})


def _instruction(text: str, images: Sequence[str]) -> Item:
    """Return the one instruction of the command line, with the images given there."""
    from satlight.images import image_source

    if not text.strip() and not images:
        return SatlightError("The instruction is empty")
    sources = tuple(image_source(os.path.expanduser(image), Path(), "--image") for image in images)
    return Asked(Request(text, sources), {"instruction": text} | ({"images": list(images)} if images else {}))


def _checked(item: Item, where: str, check_images: Callable[[Request, str], None]) -> Item:
    """Return the error instead of a request with images that the router does not read, or that cannot be opened."""
    if isinstance(item, SatlightError) or not item.request.images:
        return item
    from satlight.images import read_image

    try:
        check_images(item.request, where)
        for image in item.request.images:
            read_image(image, f"{image} ({where})" if isinstance(image, Path) else f"in {where}")
    except SatlightError as error:
        return error
    return item


def _opened(path: Path | None) -> AbstractContextManager[IO[bytes]]:
    if path is not None:
        return path.open("rb")
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:
        stream = io.BytesIO(sys.stdin.read().encode("utf-8", "surrogatepass"))
    elif stream is getattr(sys.__stdin__, "buffer", None):  # Python cannot exit while a thread waits in its own reader
        stream = open(sys.stdin.fileno(), "rb", closefd=False)  # noqa: SIM115
    return nullcontext(stream)


def _lines(stream: IO[bytes], source: str) -> Iterator[tuple[int, str | SatlightError]]:
    """Yield the lines and their numbers as they arrive; ``\\n``, ``\\r\\n`` and ``\\r`` end a line."""
    number, advice = 1, "or use --on-error skip to go on without the line"
    for content in stream:
        try:
            lines = decoded(content, source, advice).removesuffix("\n").split("\n")
        except SatlightError:
            try:
                decoded(b"\n" * (number - 1) + content, source, advice)  # the message counts lines
            except SatlightError as error:
                yield number, error
            lines = []
        yield from enumerate(lines, number)
        number += max(1, len(lines))


def read_row(line: str, folder: Path, where: str) -> Item:
    """Return the request of a JSON line: a text or a conversation, and its images."""
    from satlight.images import image_source

    try:
        row = parse_json(line, where, "each line is an object with a key 'instruction'")
        given = row.get("instruction") if isinstance(row, dict) else None
        text, shown = (given, []) if isinstance(given, str) else _last_turn(given)
        named = [] if text is None else _named_images(row, shown, where)
        images = tuple(image_source(image, folder, where) for image in named)
    except SatlightError as error:
        return error
    if text is None or not (text.strip() or images):
        allowed = "a text that is not empty, or chat messages with one"
        return SatlightError(f"{where}: 'instruction' must be {allowed}, got {given!r:.80}")
    return Asked(Request(text, images), row)


def _last_turn(messages: Any) -> tuple[str | None, list[Any]]:
    """Return the text and the images of the last user message; None without a conversation."""
    if not isinstance(messages, list):
        return None, []
    from satlight.records.chat import last_user_images, last_user_turn  # records import polars

    return last_user_turn(messages), last_user_images(messages)


def _named_images(row: dict[str, Any], shown: list[Any], where: str) -> list[str]:
    """Return the images of a row: those of its last message, then ``image`` or ``images``."""
    one, several = row.get("image"), row.get("images")
    if one is not None and several is not None:
        raise SatlightError(f"{where}: the keys 'image' and 'images' are both given; keep one of them")
    own = [one] if one is not None else several or []
    named = [*shown, *own] if isinstance(own, list) else [*shown, own]
    if not isinstance(own, list) or not all(isinstance(name, str) and name for name in named):
        raise SatlightError(
            f"{where}: the images are {named!r:.80}; 'image' is a path or a data: URL, 'images' a list of "
            "them, and image_url in a message an object with such a 'url'"
        )
    return named


def _with_progress(items: Iterator[Item], args: argparse.Namespace) -> Iterable[Item]:
    """Show a progress bar on stderr while a file is routed, unless the results appear on the same terminal."""
    if args.file is None or args.input_format == "text" or sys.stdout.isatty() or not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import Progress

    def shown() -> Iterator[Item]:
        with args.file.open("rb") as lines:
            total = sum(1 for line in lines if line.strip())
        # Redirected, the results would go to stderr, too.
        with Progress(console=Console(stderr=True), transient=True, redirect_stdout=False) as progress:
            yield from progress.track(items, total=total, description="routing")

    return shown()


def _groups(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while group := list(islice(rest, size)):
        yield group


def _batches(groups: Iterable[list[Item]]) -> Iterator[tuple[list[Asked], SatlightError | None]]:
    """Yield batches of requests; one that ends at an error comes with it."""
    for group in groups:
        batch: list[Asked] = []
        for item in group:
            if isinstance(item, SatlightError):
                yield batch, item
                batch = []
            else:
                batch.append(item)
        if batch:
            yield batch, None


# -- printing ----------------------------------------------------------------------------------------------


def _print_json(asked: Asked, ranking: Ranking) -> None:
    utf8 = (sys.stdout.encoding or "utf-8").lower().replace("-", "").replace("_", "") == "utf8"
    print(json.dumps(asked.row | ranking.to_dict(), ensure_ascii=not utf8), flush=True)


def _print_table(asked: Asked, ranking: Ranking) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=_literal(asked.request.text[:200]), title_justify="left")
    table.add_column("", justify="right")
    table.add_column("candidate", overflow="fold")
    table.add_column("probability", justify="right", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    priced = any(choice.cost_usd is not None for choice in ranking.choices)
    if priced:
        table.add_column("$ / 1000", justify="right", no_wrap=True)
    if ranking.rule != "best":
        table.caption, table.caption_justify = f"rule: {ranking.rule}", "left"
    for place, choice in enumerate(ranking.choices, 1):
        name = _literal(choice.model_id)
        cost = ["–" if choice.cost_usd is None else f"{1000 * choice.cost_usd:.3f}"] if priced else []
        table.add_row(str(place), name, f"{100 * choice.probability:.1f} %", f"{choice.score:+.2f}", *cost)
    Console().print(table)


def _literal(text: str) -> Any:
    """Return a text that rich prints as it is; characters that the terminal lacks or obeys are replaced."""
    from rich.text import Text

    encoding = sys.stdout.encoding or "utf-8"
    shown = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return Text(shown.encode(encoding, "replace").decode(encoding))
