"""``satlight reproduce``: from a run back to the command, and what differs here from when it ran."""

from __future__ import annotations

import argparse
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import yaml

from satlight.cli.route import user_path
from satlight.errors import SatlightError
from satlight.files import write_text


def add_parser(subparsers: Any) -> None:
    """Add the verb to the satlight command."""
    parser = subparsers.add_parser(
        "reproduce",
        help="print or run the command that repeats a run",
        description="Print the command that trains a run again, and compare commit, package versions and data with "
        "those of the run. The options of a W&B run are written to a file first: RUNS/NAME/wandb-ID.yaml.",
    )
    parser.add_argument(
        "source",
        metavar="RUN",
        help="run folder (runs/full/1), W&B run (ENTITY/PROJECT/RUN_ID or its URL), or folder of an offline W&B run "
        "(wandb/offline-run-*)",
    )
    parser.add_argument("--run", action="store_true", dest="execute", help="run the command")
    parser.add_argument("--runs", metavar="DIR", help="folder of the new run (default: that of the run)")
    parser.add_argument("--no-data", action="store_true", help="do not open the data to compare their fingerprint")
    parser.set_defaults(run=run_reproduce)


def run_reproduce(args: argparse.Namespace) -> None:
    """Print the command and the differences, and run it if asked to."""
    config, content, facts, where = _source(args.source, args.runs)
    argv = ["fit", "-c", str(config), "--name", str(content["name"]), "--runs", where]
    if facts.get("commit"):
        print(f"# satlight commit {facts['commit']}")
    if facts.get("command"):
        print(f"# started as: {shlex.join(['satlight', *facts['command']])}")
    print(shlex.join(["satlight", *argv]), flush=True)
    for line in differences(facts):
        print(f"warning: {line}", file=sys.stderr)
    changed = None if args.no_data else _data_difference(content, facts)
    if changed is not None:
        message = f"{changed}; the result will differ"
        if args.execute:
            raise SatlightError(f"{message}. Restore the data, or run the printed command yourself")
        print(f"warning: {message}", file=sys.stderr)
    if args.execute:
        from satlight.cli.startup import import_torchmetrics_alone

        import_torchmetrics_alone()
        from satlight.cli.training import run

        run(argv, process_ends=True)


def _source(source: str, where: str | None) -> tuple[Path, dict[str, Any], dict[str, Any], str]:
    """Return the config file of a run, its content with a name, facts about its environment, and the folder of runs."""
    from satlight.cli import runs, wandb_source
    from satlight.storage.provenance import RUN_FACTS

    folder = user_path(source)
    if (folder / runs.CONFIG).is_file():
        content = runs.read_config(folder / runs.CONFIG)
        name = content.get("name") or runs.name_of(folder / runs.CONFIG)
        facts = _facts(folder / RUN_FACTS)
        return folder / runs.CONFIG, content | {"name": name}, facts, where or str(folder.resolve().parent.parent)
    if (file := wandb_source.offline_file(folder)) is not None:
        identity, found = file.stem.removeprefix("run-"), wandb_source.offline_config(folder)
    elif (path := wandb_source.run_path(source)) is not None and not folder.exists():
        identity, found = path.rpartition("/")[2], wandb_source.server_config(path)
    else:
        raise SatlightError(
            f"{source} is no run folder (it has no {runs.CONFIG}) and no W&B run; `fit` writes a run folder, e.g. "
            "runs/full/1, and a W&B run is ENTITY/PROJECT/RUN_ID or a folder wandb/offline-run-*"
        )
    content = found["cli"]
    where, name = where or str(content.get("runs") or "runs"), str(content.get("name") or identity)
    config = Path(where) / name / f"wandb-{identity}.yaml"
    write_text(config, yaml.safe_dump(content | {"name": name, "runs": where}, sort_keys=False))
    return config, content | {"name": name}, found["facts"], where


def _facts(path: Path) -> dict[str, Any]:
    """Return what a run recorded about its environment; empty for a run of an earlier version."""
    from satlight.files import read_json

    if not path.is_file():
        print(f"warning: {path} is missing, so commit, versions and data cannot be compared", file=sys.stderr)
        return {}
    facts = read_json(path, "restore it, or delete it to reproduce the run without comparison")
    if not isinstance(facts, dict) or not isinstance(facts.get("versions", {}), dict):
        raise SatlightError(f"{path} must be an object with the key versions; restore it, or delete it")
    return facts


def differences(facts: dict[str, Any]) -> list[str]:
    """Return how commit and versions here differ from those of a run, one line each.

    Example:
        >>> differences({"versions": {"numpy": "0.1"}, "python": "1.0"})[0].startswith("numpy was 0.1, is ")
        True
    """
    from satlight.storage.provenance import provenance

    here = provenance()
    now, then = here["versions"], facts.get("versions", {})
    lines = [
        f"{name} was {then[name]}, is {now.get(name, 'not installed')}" for name in then if then[name] != now.get(name)
    ]
    if facts.get("python") not in (None, platform.python_version()):
        lines.append(f"Python was {facts['python']}, is {platform.python_version()}")
    if facts.get("commit") not in (None, here["commit"]):
        lines.append(f"satlight was at commit {facts['commit']}, is at {here['commit']}")
    return lines


def _data_difference(content: dict[str, Any], facts: dict[str, Any]) -> str | None:
    """Return how the data differ from those of the run, by their fingerprint; None if they do not."""
    from jsonargparse import ArgumentParser

    from satlight.data import RoutingDataModule

    if not (then := facts.get("fingerprint")):
        return None
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(RoutingDataModule, "data")
    data = parser.instantiate(parser.parse_object({"data": content["data"]})).data
    data.setup("fit")
    now = data.records.fingerprint
    return None if now == then else f"the data had the fingerprint {then}, they have {now}"
