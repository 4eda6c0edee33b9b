"""``satlight zoo list | show | remove | rename | set-price``: the candidates of a router folder."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from satlight.cli.route import user_path
from satlight.cli.startup import without_garbage_collection
from satlight.errors import SatlightError

if TYPE_CHECKING:
    from satlight.routers import Router

PRICES = {
    "price_in": "US dollars per million prompt tokens",
    "price_out": "US dollars per million generated tokens",
    "tokens_out": "mean number of generated tokens per request",
    "cost_usd": "mean cost of one call in US dollars, where the prices per token are unknown",
}


def add_parser(subparsers: Any) -> None:
    """Add the verb to the satlight command."""
    parser = subparsers.add_parser("zoo", help="list and change the candidates of a router folder")
    verbs = parser.add_subparsers(dest="zoo_verb", required=True, metavar="list|show|remove|rename|set-price")

    def add(name: str, run: Any, text: str) -> Any:
        verb = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        verb.add_argument("router", type=user_path, metavar="DIR", help="router folder")
        verb.set_defaults(run=run)
        return verb

    verb = add("list", run_list, "print the candidates with their prices")
    verb.add_argument("--json", action="store_true", help="print JSON instead of a table")
    verb = add("show", run_show, "print everything the router folder says about a candidate, as JSON")
    verb.add_argument("name", metavar="NAME")
    verb = add("remove", run_remove, "remove a candidate; the scores of the others do not change")
    verb.add_argument("name", metavar="NAME")
    _add_allow(verb)
    verb = add("rename", run_rename, "give a candidate another name")
    verb.add_argument("name", metavar="NAME")
    verb.add_argument("new", metavar="NEW")
    _add_allow(verb)
    verb = add("set-price", run_set_price, "set the prices of a candidate, for decision rules that read costs")
    verb.add_argument("name", metavar="NAME")
    for key, meaning in PRICES.items():
        unit = "N" if key == "tokens_out" else "USD"
        verb.add_argument(f"--{key.replace('_', '-')}", type=float, metavar=unit, help=meaning)


def _add_allow(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module whose classes the router folder may use, besides satlight's own; may be repeated",
    )


def run_list(args: argparse.Namespace) -> None:
    """Print the candidates."""
    from satlight.storage import folder as files

    files.read_config(args.router)
    zoo = files.read_zoo(args.router)
    if args.json:
        print(json.dumps([asdict(one) for one in zoo], indent=1, ensure_ascii=False))
        return
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("candidate", overflow="fold")
    keys = {"params_b": "billion", "release_date": "released", **{key: key.replace("_", " ") for key in PRICES}}
    for heading in keys.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for one in zoo:
        table.add_row(Text(one.model_id), *(_cell(getattr(one, key)) for key in keys))
    Console().print(table)


def _cell(value: Any) -> str:
    return "–" if value is None else value if isinstance(value, str) else f"{value:.6g}"


def run_show(args: argparse.Namespace) -> None:
    """Print one candidate."""
    from satlight.files import read_json
    from satlight.storage import folder as files

    files.read_config(args.router)
    zoo = files.read_zoo(args.router)
    content = asdict(zoo[_place(zoo, args.name)])
    if (path := args.router / files.APTITUDE).is_file():
        with files.sound(path):
            content["capability"] = read_json(path, files.ADVICE)["capabilities"][args.name]
    print(json.dumps(content, indent=1, ensure_ascii=False))


def run_remove(args: argparse.Namespace) -> None:
    """Write the folder without the candidate."""
    router = _load(args)
    router.remove(args.name).save(args.router)
    print(f"removed {args.name}; {len(router.candidates) - 1} candidates are left in {args.router}")


def run_rename(args: argparse.Namespace) -> None:
    """Write the folder with the new name."""
    _load(args).rename(args.name, args.new).save(args.router)
    print(f"{args.name} is {args.new} now in {args.router}")


def run_set_price(args: argparse.Namespace) -> None:
    """Write zoo.json and the model card."""
    from satlight.records.tables import check_candidates
    from satlight.storage import folder as files
    from satlight.storage.editing import editable, rewrite

    given = {key: getattr(args, key) for key in PRICES if getattr(args, key) is not None}
    if not given:
        raise SatlightError("set-price takes at least one of --price-in, --price-out, --tokens-out and --cost-usd")
    editable(args.router)
    zoo = list(files.read_zoo(args.router))
    place = _place(zoo, args.name)
    zoo[place] = replace(zoo[place], **given)
    rewrite(args.router, candidates=check_candidates([asdict(one) for one in zoo], str(args.router / files.ZOO)))
    print(f"{args.name}: {', '.join(f'{key} = {value:g}' for key, value in given.items())}")


def _load(args: argparse.Namespace) -> Router:
    from satlight.storage.editing import editable

    with without_garbage_collection():
        from satlight.routers import Router

        editable(args.router)
        return Router.from_pretrained(args.router, allow=args.allow)


def _place(zoo: Any, name: str) -> int:
    names: list[str] = [one.model_id for one in zoo]
    if name not in names:
        raise SatlightError(f"The router does not know the candidate '{name}'; its zoo is {', '.join(names)}")
    return names.index(name)
