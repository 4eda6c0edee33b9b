"""Damage files: as bytes, as text, and as JSON, YAML, Parquet, safetensors, or checkpoints with other values."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import yaml
from safetensors.numpy import load, save

_TOKENS = (
    'NaN|Infinity|-Infinity|1e999|-1e999|null|-1|2|true|""|{}|[]|\'|"|,|\\n|\\r|\\t|;|:|#|*|&a'
    "|!!python/object:os.system"
)
PIECES = (
    *(token.encode() for token in _TOKENS.split("|")),
    *(b"\0", b"\xff", b"\xef\xbb\xbf", b"\xfe\xff", b"\xed\xa0\xbd", b"\\ud83d", b"\\u0000", "ﷺ‮\u2028🧪".encode()),
    *(b"9" * 5000, b"[" * 3000, b'{"a":' * 3000, b"../../", b"=cmd|'/c calc'!A1", b"\n\n\n", b"- " * 500),
)
"""Texts that are inserted at a random place."""

VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        10**18,
        10**400,
        -(10**19),
        0.5,
        1e308,
        float("nan"),
        float("inf"),
        -float("inf"),
    ),
    *(
        "",
        " ",
        "x",
        "\ud83d",
        "\0",
        "NaN",
        "inf",
        "1e999",
        "../..",
        "a" * 2000,
        "ü\u202e",
        [],
        {},
        [None],
        [[]],
        [1, "a"],
    ),
    *({"": None}, {"a": {"b": [1]}}, {"class_path": "os.system", "init_args": {}}, ["x", "x"], "DEEP"),
)
"""Values that take the place of others."""


def damage(content: bytes, rng: random.Random) -> bytes:
    """Damage bytes: flip, cut, insert, repeat, or encode them otherwise."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        start = rng.randint(0, len(content))
        stop = min(len(content), start + rng.choice((1, 2, 8, 64, 1024)))
        kind = rng.randrange(9)
        if kind == 0 and content:
            changed = bytearray(content)
            for _ in range(rng.choice((1, 1, 8, 64))):
                changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
            content = bytes(changed)
        elif kind == 1:
            content = content[:start]
        elif kind == 2:
            content = content[:start] + content[stop:]
        elif kind in (3, 4):
            content = content[:start] + rng.choice(PIECES) + content[start if kind == 3 else stop :]
        elif kind == 5:
            content = content[:start] + content[start:stop] * rng.choice((2, 3, 50)) + content[stop:]
        elif kind == 6:
            content = content[:start] + rng.choice((b"\0", b"\xff")) * (stop - start) + content[stop:]
        elif kind == 7:
            content = content[:start] + rng.randbytes(stop - start) + content[stop:]
        else:
            content = _recoded(content, rng)
    return content


def _recoded(content: bytes, rng: random.Random) -> bytes:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return content[::-1]
    encoding = rng.choice(("utf-16", "latin-1", "cp1252", "utf-8-sig", "utf-32"))
    return text.replace("\n", rng.choice(("\n", "\r\n", "\r"))).encode(encoding, "replace")


def altered(value: Any, rng: random.Random) -> Any:
    """Replace, drop, add, or repeat a random part of nested lists and dictionaries."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(sorted(value, key=str))
        kind = rng.randrange(8)
        rest = {name: one for name, one in value.items() if name != key}
        if kind == 0:
            return rest
        if kind == 1:
            return {
                **rest,
                str(rng.choice(("", "x", "a.b", "\ud83d", key + "2" if isinstance(key, str) else "y"))): value[key],
            }
        return {**value, key: altered(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        place, kind = rng.randrange(len(value)), rng.randrange(8)
        if kind == 0:
            return value[:place] + value[place + 1 :]
        if kind == 1:
            return value[: place + 1] + value[place:]
        return [*value[:place], altered(value[place], rng), *value[place + 1 :]]
    new = rng.choice(VALUES)
    return _deep(rng.choice((90, 200, 5000))) if isinstance(new, str) and new == "DEEP" else new


def _deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


def _json_text(value: Any) -> bytes:
    """Return JSON, also of values that are nested too deep for the writer."""
    try:
        return json.dumps(value).encode()
    except RecursionError:
        return b"[" * 5000 + b"]" * 5000


def as_json(content: bytes, rng: random.Random) -> bytes:
    """Alter a value of a JSON file, or of a line of a JSONL file."""
    try:
        return _json_text(altered(json.loads(content), rng))
    except ValueError:
        lines = content.splitlines()
        place = rng.randrange(len(lines))
        lines[place] = _json_text(altered(json.loads(lines[place]), rng))
        return b"\n".join(lines)


def as_yaml(content: bytes, rng: random.Random) -> bytes:
    """Alter a value of a YAML file."""
    try:
        return yaml.safe_dump(altered(yaml.safe_load(content), rng), allow_unicode=False).encode("utf-8", "replace")
    except RecursionError:
        return b"a: " + b"[" * 5000


def as_table(content: bytes, rng: random.Random) -> bytes:
    """Change a column of a Parquet file: other types, null, NaN, repeated rows, no column."""
    frame = pl.read_parquet(io.BytesIO(content))
    name = rng.choice(frame.columns)
    kind = rng.randrange(8)
    if kind == 0:
        frame = frame.drop(name)
    elif kind == 1:
        frame = frame.rename({name: rng.choice(("x", "", "score2", "\u202e"))})
    elif kind == 2:
        frame = pl.concat([frame, frame.head(rng.randint(1, 3))])
    elif kind == 3:
        frame = frame.head(0)
    else:
        choices = (None, True, -1, 2, 10**15, float("nan"), float("inf"), "", "x", b"\xff", [1], {"a": 1}, 1e300, "NaN")
        value = rng.choice(choices)
        values = [value] * frame.height if kind > 5 else None
        if values is None and frame[name].dtype.is_float() and isinstance(value, float):
            values = frame[name].to_list()
            values[rng.randrange(len(values))] = value
        elif values is None:
            values = [value if rng.random() < 0.5 else None for _ in range(frame.height)]
        frame = frame.with_columns(pl.Series(name, values, strict=False))
    file = io.BytesIO()
    frame.write_parquet(file)
    return file.getvalue()


def as_arrays(content: bytes, rng: random.Random) -> bytes:
    """Change a tensor of a safetensors file: NaN, infinity, huge values, another shape or type, no tensor."""
    arrays = {name: np.array(array) for name, array in load(content).items()}
    name = rng.choice(sorted(arrays))
    arrays = _changed_array(arrays, name, rng)
    return save(arrays, metadata={"format": "pt"})


def _changed_array(arrays: dict[str, np.ndarray], name: str, rng: random.Random) -> dict[str, np.ndarray]:
    array, kind = arrays[name], rng.randrange(8)
    if kind == 0:
        return {key: value for key, value in arrays.items() if key != name}
    if kind == 1:
        return {**arrays, f"{name}x": array}
    if kind == 2:
        return {**arrays, name: array.reshape(-1)[: rng.randint(0, array.size)].copy()}
    if kind == 3:
        kinds = (np.int64, np.float64, np.uint8, np.bool_, np.float16)
        return {**arrays, name: np.nan_to_num(array).astype(rng.choice(kinds))}
    if kind == 4:
        return {**arrays, name: array[None]}
    if array.size and array.dtype.kind == "f":
        flat = array.reshape(-1).copy()
        flat[rng.randrange(array.size) if kind < 7 else slice(None)] = rng.choice(
            (np.nan, np.inf, -np.inf, 3e38, 1e-45)
        )
        return {**arrays, name: flat.reshape(array.shape)}
    if array.size:
        flat = array.reshape(-1).copy()
        limits = (True,) if array.dtype.kind == "b" else (np.iinfo(array.dtype).max, np.iinfo(array.dtype).min)
        flat[rng.randrange(array.size)] = rng.choice(limits)
        return {**arrays, name: flat.reshape(array.shape)}
    return {}


def as_checkpoint(content: bytes, rng: random.Random) -> bytes:
    """Change a value or tensor of a checkpoint, and write it again."""
    state = torch.load(io.BytesIO(content), weights_only=True)
    if rng.random() < 0.5:
        tensors = {key: value.numpy() for key, value in state["state_dict"].items() if isinstance(value, torch.Tensor)}
        changed = _changed_array(tensors, rng.choice(sorted(tensors)), rng)
        others = {key: value for key, value in state["state_dict"].items() if not isinstance(value, torch.Tensor)}
        state["state_dict"] = {key: torch.from_numpy(np.array(value)) for key, value in changed.items()} | others
    else:
        state = altered(state, rng)
    file = io.BytesIO()
    try:
        torch.save(state, file)
    except RecursionError:
        return content[: len(content) // 2]
    return file.getvalue()


STRUCTURED: dict[str, Callable[[bytes, random.Random], bytes]] = {
    ".json": as_json,
    ".jsonl": as_json,
    ".yaml": as_yaml,
    ".parquet": as_table,
    ".safetensors": as_arrays,
    ".ckpt": as_checkpoint,
}
"""Suffix → how its content is altered."""


def mutate(path: Path, rng: random.Random) -> str:
    """Damage a file in place.

    Returns:
        How.
    """
    content = path.read_bytes()
    alter = STRUCTURED.get(path.suffix)
    if alter is not None and content and rng.random() < 0.6:
        path.write_bytes(alter(content, rng))
        return "other values"
    path.write_bytes(damage(content, rng))
    return "other bytes"
