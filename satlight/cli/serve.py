"""``satlight serve``: an OpenAI-compatible server that routes."""

from __future__ import annotations

import argparse
from typing import Any

from satlight.cli.route import user_path
from satlight.cli.startup import without_garbage_collection


def add_parser(subparsers: Any) -> None:
    """Add the verb to the satlight command."""
    serve = subparsers.add_parser(
        "serve",
        help="serve an OpenAI-compatible API that routes each request",
        description="Serve an OpenAI-compatible API: the model name `satlight` is answered by the candidate that the "
        "router chooses. Needs `pip install satlight[serve]`.",
    )
    serve.add_argument("--router", required=True, type=user_path, metavar="DIR", help="folder of an exported router")
    serve.add_argument("--config", required=True, type=user_path, metavar="YAML", help="upstreams of the candidates")
    serve.add_argument(
        "--default", required=True, metavar="CANDIDATE", help="who answers when there is no decision in time"
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to bind (default 127.0.0.1)")
    serve.add_argument("--port", type=int, default=4000, help="port (default 4000)")
    serve.add_argument("--api-key-env", metavar="VAR", help="variable with the key that clients must send")
    serve.add_argument("--rule", help="rule of the model name `satlight` (default: the router's saved rule, else best)")
    serve.add_argument(
        "--deadline-ms", type=int, default=1000, metavar="MS", help="wait this long for a decision (default 1000)"
    )
    serve.add_argument(
        "--queue-size", type=int, default=1024, metavar="N", help="requests that may wait for a decision (default 1024)"
    )
    serve.add_argument("--batch-size", type=int, default=32, metavar="N", help="requests scored at once (default 32)")
    serve.add_argument(
        "--context-turns", type=int, default=0, metavar="N", help="messages before the last user turn (default 0)"
    )
    serve.add_argument(
        "--window-chars", type=int, default=8000, metavar="N", help="length of the routed text (default 8000)"
    )
    serve.add_argument("--sticky", action="store_true", help="keep the candidate of a conversation")
    serve.add_argument("--max-body-mb", type=float, default=16.0, metavar="MB", help="largest body (default 16)")
    serve.add_argument(
        "--max-prompt-chars", type=int, default=500_000, metavar="N", help="longest texts in all (default 500000)"
    )
    serve.add_argument(
        "--allow-image-host", action="append", default=[], metavar="HOST", help="download images from HOST; repeatable"
    )
    serve.add_argument("--feedback", type=user_path, metavar="DIR", help="append graded answers to this folder")
    serve.add_argument(
        "--feedback-text",
        choices=("keep", "hash", "omit"),
        default="keep",
        help="instructions in the feedback: as they are (default), as SHA-256, or none",
    )
    serve.add_argument(
        "--reload-seconds", type=float, default=2.0, metavar="S", help="look for new files this often (default 2)"
    )
    serve.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module whose classes the router folder may use, besides satlight's own; may be repeated",
    )
    serve.set_defaults(run=run_serve)


def run_serve(args: argparse.Namespace) -> None:
    """Serve until interrupted."""
    from satlight.serving.settings import ServeSettings

    options = {name: value for name, value in vars(args).items() if name in ServeSettings.__dataclass_fields__}
    lists = {"image_hosts": tuple(args.allow_image_host), "allow": tuple(args.allow)}
    settings = ServeSettings(**(options | lists))
    with without_garbage_collection():
        from satlight.serving import gateway
    gateway.run(settings)
