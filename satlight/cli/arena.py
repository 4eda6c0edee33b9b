"""``satlight export-arena``: write a router's choices as a submission to RouterArena."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from satlight.cli.route import add_candidates_option, candidate_names, check_batch_size, user_path
from satlight.errors import SatlightError

if TYPE_CHECKING:
    import numpy as np

    from satlight.routing.arena import ArenaPrompt


def add_parser(subparsers: Any) -> None:
    """Add the verb to the satlight command."""
    parser = subparsers.add_parser(
        "export-arena",
        help="write a router's choices as a RouterArena prediction file",
        description="Choose a candidate for every prompt of RouterArena and write config/NAME.json and "
        "predictions/NAME.json. See docs/protocols.md for the remaining steps.",
    )
    parser.add_argument(
        "--prompts", required=True, type=user_path, metavar="FILE", help="RouterArena's router_data.json, or JSONL"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--router", type=user_path, metavar="DIR", help="folder of an exported router")
    source.add_argument(
        "--scores", type=user_path, metavar="PARQUET", help="scores.parquet whose instruction_id is the global index"
    )
    parser.add_argument("--name", required=True, help="name of the router in RouterArena")
    parser.add_argument("--to", required=True, type=user_path, metavar="DIR", help="RouterArena/router_inference")
    add_candidates_option(parser)
    parser.add_argument(
        "--names", type=user_path, metavar="JSON", help="{candidate: name in RouterArena} where they differ"
    )
    parser.add_argument(
        "--optimality",
        type=user_path,
        metavar="FILE",
        help="prompts (router_data_10.json) for which every other candidate is listed too",
    )
    parser.add_argument(
        "--robustness", action="store_true", help="the prompts are the robustness set: NAME-robustness.json"
    )
    parser.add_argument("--batch-size", type=int, default=32, help="prompts scored at once (default 32)")
    parser.set_defaults(run=run_export_arena)


def run_export_arena(args: argparse.Namespace) -> None:
    """Score the prompts, choose, write the files and print their paths."""
    from satlight.routing.arena import arena_predictions, read_arena_prompts, save_arena

    prompts = read_arena_prompts(args.prompts)
    optimality = {prompt.key for prompt in read_arena_prompts(args.optimality)} if args.optimality else set()
    model_ids, score_NM = _scores(args, prompts)
    models = _arena_names(args.names, model_ids)
    entries = arena_predictions(prompts, score_NM, models, optimality)
    for path in save_arena(args.to, args.name, models, entries, args.robustness):
        print(path)


def _scores(args: argparse.Namespace, prompts: list[ArenaPrompt]) -> tuple[list[str], np.ndarray]:
    """Return the candidates and their scores (N, M)."""
    import numpy as np

    if args.scores is not None:
        from satlight.routing.scores import StoredScores

        scores = StoredScores.read(args.scores)
        model_ids = candidate_names(args.candidates, scores.model_ids) or list(scores.model_ids)
        try:
            return model_ids, scores.at([prompt.key for prompt in prompts], model_ids)
        except SatlightError as error:
            raise SatlightError(f"{args.prompts} and {args.scores} do not match: {error}") from error
    check_batch_size(args.batch_size)
    from rich.console import Console
    from rich.progress import track

    from satlight.routers import Router

    router = Router.from_pretrained(args.router)
    model_ids = candidate_names(args.candidates, router.model_ids) or router.model_ids
    starts = range(0, len(prompts), args.batch_size)
    batches = [[prompt.text for prompt in prompts[start : start + args.batch_size]] for start in starts]
    progress = track(batches, "scoring", console=Console(stderr=True), transient=True)
    return model_ids, np.concatenate([router.score(texts, model_ids).log_odds_BC for texts in progress])


def _arena_names(path: Path | None, model_ids: list[str]) -> list[str]:
    """Return the candidates' names in RouterArena."""
    if path is None:
        return model_ids
    from satlight.files import read_json
    from satlight.records.names import listed

    names = read_json(path, "give a JSON object that maps candidates to names")
    if not isinstance(names, dict) or not all(isinstance(name, str) and name for name in names.values()):
        raise SatlightError(f'{path} must map candidates to names, such as {{"org/one-7b": "one-7b"}}.')
    if unknown := [name for name in names if name not in model_ids]:
        raise SatlightError(f"{path} names {listed(unknown)}; the candidates are {listed(model_ids)}.")
    return [names.get(model_id, model_id) for model_id in model_ids]
