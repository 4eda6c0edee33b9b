"""The settings of a run: read first by the verbs that use the run, and compared with what was given."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from satlight.cli import runs
from satlight.errors import SatlightError

_TRAINER_KEYS = ("precision", "deterministic", "callbacks", "logger", "enable_progress_bar", "enable_model_summary")
"""Options of the trainer that evaluation takes from the run; devices and limits are its own."""
_FREE = (
    *("zoo", "test_groups", "predict_split", "eval_instructions"),
    *("sampler", "targets", "blocks_per_epoch", "aptitude.resample", "aptitude.mixtures"),  # of training only
)
"""Data options that may differ from the run's."""
_PATHS = ("records", "zoo_preset", "keywords", "backbone")


class Parser(LightningArgumentParser):
    """Accept whole option names only, and name the nearest ones."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        parser = getattr(ex, "subcommand_parser", None) or self
        options = [option for action in parser._actions for option in action.option_strings]
        for word in re.findall(r"(?:nrecognized arguments:|Unrecognized option) (--[\w.+-]+)", message):
            wanted = [option for option in options if option.startswith(word)]
            if near := wanted[:3] or difflib.get_close_matches(word, options, 3):
                message += f"\n{word} is no option; did you mean {' or '.join(near)}?"
        super().error(message, ex)


def split_configs(argv: list[str]) -> list[str]:
    """Write each ``--config`` that stands for several options as those options, in order.

    A point of a sweep is one string: YAML files and ``OPTION=VALUE``, separated by ``" + "``.

    Args:
        argv: Arguments of a training verb.

    Raises:
        SatlightError: A part is neither a file nor ``OPTION=VALUE``.

    Example:
        >>> split_configs(["fit", "--config=model.encoder=mine.yaml + model.perturbations=2"])
        ['fit', '--model.encoder=mine.yaml', '--model.perturbations=2']
    """
    found, rest = [], iter(argv)
    for word in rest:
        option, equals, value = word.partition("=")
        if option not in ("-c", "--config"):
            found.append(word)
            continue
        if not equals and (value := next(rest, "")) == "":
            found.append(word)
            continue
        parts = value.split(" + ") if not value.lstrip().startswith("{") and not Path(value).exists() else [value]
        for part in map(str.strip, parts):
            if re.match(r"[A-Za-z_][\w.]*=", part) and not Path(part).exists():
                found.append(f"--{part}")
            elif len(parts) > 1 and not Path(part).expanduser().is_file():
                raise SatlightError(
                    f"--config {value!r}: {part!r} is neither a YAML file nor OPTION=VALUE; separate them by ' + '"
                )
            else:
                found += ["--config", part]
    return found


def complete(argv: list[str]) -> list[str]:
    """Resolve run folder, name and checkpoint in the arguments of a training verb.

    ``test``, ``validate`` and ``predict`` read the run's own settings before everything else.

    Args:
        argv: The verb and its arguments.

    Returns:
        Arguments with ``--name``, and with the file of the checkpoint as ``--ckpt_path``.

    Raises:
        SatlightError: There is no such run, checkpoint or config.
    """
    verb, argv = argv[0], split_configs(argv[1:])
    if any(word.partition("=")[0].endswith(("-h", "help", "--print_config")) for word in argv):
        return [verb, *argv]
    folder = Path(argv.pop(0)).expanduser() if argv and not argv[0].startswith("-") else None
    given = _scan(argv)
    path = given["ckpt_path"] or (None if verb == "fit" else "best")
    if folder is not None:
        path = _in_folder(folder, verb, path)
        given["name"] = given["name"] if given["named"] else runs.name_of(folder / runs.CONFIG)
    configured = given.pop("configured") or any(word.startswith("--model") for word in argv)
    if not configured and (verb == "fit" or (folder is None and given["ckpt_path"] is None and not given["named"])):
        more = "" if verb == "fit" else f", or name a run: lightning {verb} runs/full/1, or --name NAME"
        raise SatlightError(f"`{verb}` needs a config: lightning {verb} -c configs/full.yaml{more}")
    if path in ("best", "last"):
        path = str(runs.checkpoint(Path(given["runs"]).expanduser(), given["name"], path))
    base = []
    if path is not None:
        path = os.path.expanduser(path)
        if not Path(path).is_file():
            raise SatlightError(
                f"--ckpt_path {path}: no such file; `best` and `last` stand for those of the newest run"
            )
        run = runs.folder_of(path)
        if run is not None and verb != "fit":
            base = ["--config", json.dumps(of_run(run) | {"trainer": _trainer_of_run(run)})]
        argv += ["--ckpt_path", path]
    return [verb, *base, *argv, "--name", given["name"]]


def _scan(argv: list[str]) -> dict[str, Any]:
    """Return name, runs and ckpt_path as given on the command line or in config files."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-c", "--config", action="append", nargs="?", default=[])
    for key in ("name", "runs", "ckpt_path"):
        parser.add_argument(f"--{key}", nargs="?")
    known, _ = parser.parse_known_args(argv)
    files = [Path(word).expanduser() for word in known.config if word and not word.lstrip().startswith("{")]
    found: dict[str, Any] = {"name": None, "runs": "runs", "ckpt_path": None}
    for path in files:
        content = runs.read_config(path)
        found |= {key: content[key] for key in found if content.get(key) is not None}
    found |= {key: getattr(known, key) for key in found if getattr(known, key) is not None}
    found = {key: None if value in (None, "null") else str(value) for key, value in found.items()}
    named = found["name"] is not None
    found["name"] = os.path.expanduser(found["name"] or runs.name_of(files[0] if files else None))
    return found | {"named": named, "configured": bool(known.config)}


def _in_folder(folder: Path, verb: str, path: str | None) -> str:
    """Return the checkpoint of a run folder given as the first argument."""
    if verb == "fit":
        raise SatlightError(f"`fit` takes options only, got {str(folder)!r}; to continue a run: --ckpt_path last")
    if not (folder / runs.CONFIG).is_file():
        raise SatlightError(f"{folder} is no run folder (it has no {runs.CONFIG}); `fit` writes one, e.g. runs/full/1")
    return str(folder / "checkpoints" / f"{path}.ckpt") if path in ("best", "last") else str(path)


def of_run(run: Path) -> dict[str, Any]:
    """Return seed, module and data of a run's configuration, which every verb uses."""
    content = runs.read_config(run / runs.CONFIG)
    return {key: content[key] for key in ("seed_everything", "model", "data") if key in content}


def _trainer_of_run(run: Path) -> dict[str, Any]:
    """Return the options of a run's trainer that its evaluation uses."""
    trainer = runs.read_config(run / runs.CONFIG).get("trainer") or {}
    for logger in trainer.get("logger") or [] if isinstance(trainer.get("logger"), list) else []:
        if str(logger.get("class_path", "")).endswith("WandbLogger"):
            logger.get("init_args", {}).pop("save_dir", None)  # in the folder of the run, wherever that is now
    return {key: trainer[key] for key in _TRAINER_KEYS if trainer.get(key) is not None}


def expand(config: Namespace) -> None:
    """Make the paths in a configuration absolute, so that it can be used from any directory, in place."""
    config["runs"] = os.path.expanduser(config["runs"])
    for key, value in list(config.items()):
        part, name = key.partition(".")[0], key.rpartition(".")[2]
        if part in ("model", "data") and name in _PATHS and isinstance(value, str):
            path = os.path.expanduser(value)
            explicit = value.startswith(("~", "./", "../"))
            if explicit or (name != "backbone" and value != "simulated" and Path(path).exists()):
                config[key] = os.path.abspath(path)


def compare(run: Path, config: Namespace) -> tuple[list[str], list[str]]:
    """Return how model and data settings differ from those of a run, one line per option.

    A checkpoint fits any module of the same shape; with other settings it would silently route badly. Options
    of training only, and those that select what is reported, may differ.
    """
    trained = runs.read_config(run / runs.CONFIG)
    return tuple(_differing(key, config[key].as_dict(), trained.get(key)) for key in ("model", "data"))  # type: ignore[return-value]


def _differing(part: str, given: dict[str, Any], trained: Any) -> list[str]:
    now, then = _flat(given), _flat(trained or {})
    lines = []
    for key in sorted(now.keys() & then.keys()):
        option = key.replace("init_args.", "")
        if part == "model" and {"objective", "optimizer"} & set(option.split(".")):
            continue
        if part == "data" and any(option == free or option.startswith(f"{free}.") for free in _FREE):
            continue
        if option.startswith("simulated.") and now.get("init_args.records") != "simulated":
            continue
        if _same(now[key]) != _same(then[key]):
            lines.append(f"{part}.{option} is {then[key]!r} in the run, {now[key]!r} given")
    return lines


def _same(value: Any) -> Any:
    """Return a value to compare: paths of one file are equal."""
    if isinstance(value, str) and Path(path := os.path.expanduser(value)).exists():
        return os.path.realpath(path)
    return value


def refuse(run: Path, differences: list[str], verb: str) -> SatlightError:
    """Return the error of data settings that are not those of the run."""
    other = (
        "or start a new run, without --ckpt_path"
        if verb == "fit"
        else f"or add --other-data to use the router on other data (written to {run / 'other'})"
    )
    return SatlightError(
        f"{run} has other data settings: {'; '.join(differences)}. Leave them out to use the run's, {other}"
    )


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries to dotted keys; tuples become lists."""
    if not isinstance(tree, dict):
        return {prefix[:-1]: list(tree) if isinstance(tree, tuple) else tree}
    return {name: value for key in tree for name, value in _flat(tree[key], f"{prefix}{key}.").items()}
