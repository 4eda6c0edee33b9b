"""upstreams.yaml: which endpoint answers for which candidate, and the litellm config made of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from satlight.errors import SatlightError
from satlight.files import parse_yaml, read_text
from satlight.types import Candidate

MODEL = "satlight"
"""Model name that routes by the default rule; ``satlight:RULE`` names another rule."""

PLUGIN = "satlight.serving.gateway.plugin"
FAILOVERS = tuple(f"{MODEL}:failover-{number}" for number in range(1, 6))
"""Hidden aliases of :data:`MODEL`, one per further attempt: litellm asks each name of a fallback list once only."""

ADVICE = "write `upstreams: {CANDIDATE: {model: openai/NAME, api_base: URL, api_key_env: VAR}}` (docs/serving.md)"


@dataclass(frozen=True)
class Upstreams:
    """Content of upstreams.yaml.

    Args:
        params: Candidate → ``litellm_params``.
        excluded: Candidates of the router that are never chosen.
        extra: All other sections, passed on to litellm.
        where: The file, for messages.
    """

    params: Mapping[str, Mapping[str, Any]]
    excluded: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    where: str = "upstreams.yaml"

    def active(self, zoo: Sequence[str], default: str) -> tuple[str, ...]:
        """Return the candidates of a router that may be chosen.

        Raises:
            SatlightError: A candidate without upstream, or a default that is not among them.
        """
        missing = [name for name in zoo if name not in self.params and name not in self.excluded]
        if missing:
            raise SatlightError(
                f"{self.where} has no upstream for the candidates {missing} of the router; add them under `upstreams`, "
                "or list them under `exclude`"
            )
        active = tuple(name for name in zoo if name not in self.excluded)
        if default not in active:
            raise SatlightError(f"--default {default!r} is not a candidate that can be chosen; allowed are {[*active]}")
        return active

    @property
    def one_key(self) -> bool:
        """True if the server's key is the only one: litellm has no database of keys and no check of its own."""
        general = self.extra.get("general_settings") or {}
        return not os.environ.get("DATABASE_URL") and not {"database_url", "custom_auth"} & set(general)

    def models(self) -> dict[str, str]:
        """Return candidate → ``litellm_params.model``, by which litellm tells deployments apart."""
        return {name: params["model"] for name, params in self.params.items()}

    def model_list(self, candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
        """Return litellm's ``model_list``: a group of all active candidates, and a group of each upstream."""
        prices = {one.model_id: one for one in candidates}
        entries = []
        for name, params in self.params.items():
            entry = {**_priced(prices.get(name)), **params}
            routed = name in prices and name not in self.excluded
            for group in (*((MODEL,) if routed else ()), name):
                entries.append({"model_name": group, "litellm_params": dict(entry)})
        return [*entries, *(self.extra.get("model_list") or ())]

    def litellm_config(
        self, candidates: Sequence[Candidate], api_key_env: str | None, plugin: str = PLUGIN
    ) -> dict[str, Any]:
        """Return the whole litellm config, which names the plugin by its dotted path."""
        extra = {key: value for key, value in self.extra.items() if key != "model_list"}
        general = dict(extra.pop("general_settings", None) or {})
        if api_key_env is not None:
            general["master_key"] = f"os.environ/{api_key_env}"
        router = {"num_retries": 0, "max_fallbacks": len(FAILOVERS)} | (extra.pop("router_settings", None) or {})
        router["plugins"] = [plugin, *(router.get("plugins") or ())]
        router["fallbacks"] = [{MODEL: [*FAILOVERS]}, *(router.get("fallbacks") or ())]
        aliases = {name: {"model": MODEL, "hidden": True} for name in FAILOVERS}
        router["model_group_alias"] = aliases | (router.get("model_group_alias") or {})
        litellm = {"telemetry": False, "num_retries": 0} | (extra.pop("litellm_settings", None) or {})
        return {
            "model_list": self.model_list(candidates),
            "general_settings": general,
            "router_settings": router,
            "litellm_settings": litellm,
            **extra,
        }


def read_upstreams(path: Path) -> Upstreams:
    """Read upstreams.yaml.

    Raises:
        SatlightError: Not the format, a key in the file, a variable that is not set, or two candidates of one model.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "upstreams.yaml"
        >>> _ = file.write_text("upstreams: {a: {model: openai/a, api_base: 'http://127.0.0.1:8000/v1'}}")
        >>> read_upstreams(file).models()
        {'a': 'openai/a'}
    """
    content = parse_yaml(read_text(path, ADVICE), str(path), ADVICE)
    given = content.get("upstreams") if isinstance(content, dict) else None
    if not isinstance(given, dict) or not given:
        raise SatlightError(f"{path} has no section `upstreams` with candidates; {ADVICE}")
    excluded = content.get("exclude") or []
    if not isinstance(excluded, list) or not all(isinstance(name, str) for name in excluded):
        raise SatlightError(f"{path}: `exclude` is {excluded!r:.80}; give a list of candidates")
    params = {str(name): _params(one, f"{path}, upstream {name!r}") for name, one in given.items()}
    owners: dict[str, str] = {}
    for name, one in params.items():
        if name.startswith((f"{MODEL}:", "\0")) or name == MODEL:
            raise SatlightError(f"{path}: {name!r} is a name of the server itself; rename the candidate")
        if (other := owners.setdefault(one["model"], name)) != name:
            raise SatlightError(
                f"{path}: {other!r} and {name!r} have the same model {one['model']!r}, by which litellm tells them "
                "apart; serve one of them under another name (e.g. vLLM's --served-model-name)"
            )
    extra = {key: value for key, value in content.items() if key not in ("upstreams", "exclude")}
    _check_sections(extra, path)
    return Upstreams(params, tuple(excluded), extra, str(path))


def _check_sections(extra: Mapping[str, Any], path: Path) -> None:
    """Raise if a section of litellm to which the server adds something has another type than litellm's."""
    router = extra.get("router_settings")
    owners: list[tuple[str, Any, str, type]] = [
        *(("", extra, key, dict) for key in ("general_settings", "router_settings", "litellm_settings")),
        ("", extra, "model_list", list),
        *(("router_settings.", router, key, list) for key in ("plugins", "fallbacks")),
        ("router_settings.", router, "model_group_alias", dict),
    ]
    for prefix, owner, key, kind in owners:
        value = owner.get(key) if isinstance(owner, dict) else None
        if value is not None and not isinstance(value, kind):
            form = "a mapping" if kind is dict else "a list"
            raise SatlightError(f"{path}: `{prefix}{key}` is {value!r:.80}; litellm takes {form}")


def _params(given: Any, where: str) -> dict[str, Any]:
    """Return ``litellm_params`` whose key is a reference to the environment."""
    if not isinstance(given, dict) or not isinstance(given.get("model"), str) or not given["model"]:
        raise SatlightError(f"{where} is {type(given).__name__} without a text `model`; {ADVICE}")
    params = dict(given)
    variable = params.pop("api_key_env", None)
    key = params.get("api_key")
    if key is not None and not str(key).startswith("os.environ/"):
        raise SatlightError(f"{where} holds an `api_key`; put it into an environment variable and name it: api_key_env")
    if variable is not None:
        if not os.environ.get(str(variable)):
            raise SatlightError(f"{where}: the variable {variable} is not set; set it to the upstream's key")
        params["api_key"] = f"os.environ/{variable}"
    elif key is None and "api_base" in params:
        params["api_key"] = "none"  # OpenAI's client refuses an empty key, which a local server ignores
    return params


def _priced(candidate: Candidate | None) -> dict[str, float]:
    """Return litellm's prices, dollars per token, of a candidate's dollars per million tokens."""
    if candidate is None:
        return {}
    prices = {"input_cost_per_token": candidate.price_in, "output_cost_per_token": candidate.price_out}
    return {name: price / 1e6 for name, price in prices.items() if price is not None}
