"""Options and facts of a run from Weights & Biases: its server, or the folder of an offline run."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from satlight.errors import SatlightError

_PATH = re.compile(r"(?:https?://[^/]+/)?([\w.-]+)/([\w.-]+)/(?:runs/)?([\w-]+)/?")
_BLOCK, _HEADER = 32768, 7
_ADVICE = "name the run of a `fit` of satlight: ENTITY/PROJECT/RUN_ID, or its folder wandb/offline-run-*"


def run_path(text: str) -> str | None:
    """Return ``ENTITY/PROJECT/RUN_ID`` if a text names a run on a server; None if it can only be a folder.

    Example:
        >>> run_path("https://wandb.ai/me/satlight/runs/b63df537"), run_path("me/satlight/b63df537")
        ('me/satlight/b63df537', 'me/satlight/b63df537')
        >>> run_path("a/folder") is None
        True
    """
    found = _PATH.fullmatch(text)
    is_folder = found is None or (not text.startswith("http") and Path(found[1]).exists())
    return None if is_folder or found is None else "/".join(found.groups())


def server_config(path: str) -> dict[str, Any]:
    """Return the config of a run on W&B's server.

    Args:
        path: ``ENTITY/PROJECT/RUN_ID``.

    Raises:
        SatlightError: There is no API key, no connection, no such run, or no options in it.
    """
    import wandb

    from satlight.callbacks.wandb_run import has_key

    if not has_key():
        raise SatlightError(
            f"W&B run {path} needs an API key: run `wandb login`, or set WANDB_API_KEY. For a run on this machine, "
            "give its folder, e.g. runs/full/1"
        )
    try:
        config = wandb.Api(timeout=30).run(path).config
    except Exception as error:  # the client raises errors of its own, of requests and of its background process
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SatlightError(
            f"W&B run {path} cannot be read ({reason}); check its name, the key and the network"
        ) from error
    return _checked(dict(config), f"W&B run {path}")


def offline_config(folder: Path) -> dict[str, Any]:
    """Return the config of an offline run.

    Args:
        folder: ``wandb/offline-run-*`` or ``wandb/run-*``, with a file ``run-*.wandb``.

    Raises:
        SatlightError: The file is missing or damaged, or has no options.
    """
    from wandb.proto import wandb_internal_pb2

    path = offline_file(folder)
    assert path is not None
    content = path.read_bytes()
    config: dict[str, Any] = {}
    try:
        for data in _records(content):
            record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
            record.ParseFromString(data)
            for update in (*record.run.config.update, *record.config.update):
                _set(config, list(update.nested_key) or [update.key], json.loads(update.value_json))
    except Exception as error:  # protobuf's DecodeError has no public base class
        raise SatlightError(f"{path} is damaged ({error}); {_ADVICE}") from error
    return _checked(config, str(folder))


def offline_file(folder: Path) -> Path | None:
    """Return the file of a W&B run in its folder; None if the folder has none."""
    return next(iter(sorted(folder.glob("run-*.wandb"))), None)


def _checked(config: dict[str, Any], where: str) -> dict[str, Any]:
    options, facts = config.get("cli"), config.get("facts", {})
    if not isinstance(options, dict) or not {"model", "data"} <= options.keys() or not isinstance(facts, dict):
        raise SatlightError(f"{where} has no options of satlight (config.cli with model and data); {_ADVICE}")
    return {"cli": options, "facts": facts}


def _set(config: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        config = config.setdefault(key, {})
    config[keys[-1]] = value


def _records(content: bytes) -> Iterator[bytes]:
    """Yield the records of a file in the format of LevelDB's log, with W&B's header of 7 bytes.

    A run that was killed may end within a record, which is left out.
    """
    if not content.startswith(b":W&B"):
        raise ValueError("it does not begin with :W&B")
    position, parts = _HEADER, b""
    while position + _HEADER <= len(content):
        if (left := _BLOCK - position % _BLOCK) < _HEADER:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + _HEADER])
        position += _HEADER
        if kind == 0 or position + length > len(content):
            return
        parts = (b"" if kind in (1, 2) else parts) + content[position : position + length]
        position += length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield parts
