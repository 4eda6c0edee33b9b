"""Options of the server."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from satlight.errors import SatlightError

TextPolicy = Literal["keep", "hash", "omit"]


@dataclass(frozen=True)
class ServeSettings:
    """Options of ``satlight serve``, named as on the command line.

    Args:
        router: Router folder.
        config: upstreams.yaml, see :mod:`satlight.serving.upstreams`.
        default: Candidate that answers when there is no decision in time.
        host: Address to bind; one other than loopback needs ``api_key_env``.
        port: TCP port.
        api_key_env: Name of the environment variable that holds the key of clients; None = no key, loopback only.
        rule: Decision rule of the model name ``satlight``; None = the router's saved rule.
        deadline_ms: Milliseconds to wait for a decision before the default candidate answers.
        queue_size: Maximum number of requests that wait for a decision.
        batch_size: Maximum number of requests that are scored at once.
        context_turns: Number of messages before the last user turn that are part of the routed text.
        window_chars: Maximum length of the routed text in characters.
        sticky: Keep the candidate of a conversation.
        max_body_mb: Maximum size of a request body in MB.
        max_prompt_chars: Maximum length of all texts of a request in characters.
        image_hosts: Hosts from which images may be downloaded for the decision.
        feedback: Folder of graded answers; None = feedback is refused.
        feedback_text: Whether records hold the instruction, its SHA-256, or neither.
        reload_seconds: Seconds between two looks at the router folder and upstreams.yaml.
        allow: Modules whose classes the router folder may name, besides satlight's own.

    Raises:
        SatlightError: A value out of range, an address that needs a key, or a variable that is not set.

    Example:
        >>> ServeSettings(Path("router"), Path("upstreams.yaml"), default="a").deadline_ms
        1000
    """

    router: Path
    config: Path
    default: str
    host: str = "127.0.0.1"
    port: int = 4000
    api_key_env: str | None = None
    rule: str | None = None
    deadline_ms: int = 1000
    queue_size: int = 1024
    batch_size: int = 32
    context_turns: int = 0
    window_chars: int = 8000
    sticky: bool = False
    max_body_mb: float = 16.0
    max_prompt_chars: int = 500_000
    image_hosts: tuple[str, ...] = ()
    feedback: Path | None = None
    feedback_text: TextPolicy = "keep"
    reload_seconds: float = 2.0
    allow: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        positive = ("deadline_ms", "queue_size", "batch_size", "window_chars", "max_body_mb", "max_prompt_chars")
        for name in (*positive, "reload_seconds"):
            if not getattr(self, name) > 0:
                raise SatlightError(f"--{name.replace('_', '-')} is {getattr(self, name)}; it must be above 0")
        if self.context_turns < 0 or not 0 < self.port < 65536:
            raise SatlightError(
                f"--context-turns is {self.context_turns} (0 or more), --port {self.port} (1 to 65535); correct them"
            )
        if self.api_key_env is not None and len(os.environ.get(self.api_key_env, "")) < 16:
            raise SatlightError(
                f"--api-key-env {self.api_key_env}: the variable is not set or shorter than 16 characters; set it to "
                "the key that clients must send"
            )
        if self.api_key_env is None and not is_loopback(self.host):
            raise SatlightError(
                f"--host {self.host} can be reached from other machines, and no key protects the server; add "
                "--api-key-env VAR, or bind to 127.0.0.1"
            )


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address.

    Example:
        >>> [is_loopback(host) for host in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "example.org")]
        [True, True, True, False, False]
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
