"""``satlight export-litellm`` and ``satlight export-vllm-sr``: files for gateways that others run."""

from __future__ import annotations

import argparse
from typing import Any

from satlight.cli.recommend import add_log_options
from satlight.cli.route import user_path


def add_parser(subparsers: Any) -> None:
    """Add the verbs to the satlight command."""
    _add_litellm(subparsers)
    _add_vllm_sr(subparsers)


def _add_litellm(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "export-litellm",
        help="write a litellm proxy config that routes by a router",
        description="Write litellm.yaml and the module of its routing plugin, for a litellm proxy of your own.",
    )
    parser.add_argument("--router", required=True, type=user_path, metavar="DIR", help="router folder")
    parser.add_argument("--config", required=True, type=user_path, metavar="YAML", help="upstreams of the candidates")
    parser.add_argument("--default", required=True, metavar="CANDIDATE", help="answers when there is no decision")
    parser.add_argument("--rule", help="decision rule (default: the router's saved rule, else best)")
    parser.add_argument("--api-key-env", metavar="VAR", help="variable with litellm's master key")
    parser.add_argument("--to", required=True, type=user_path, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="MODULE", help="a module whose classes the folder may use, too"
    )
    parser.set_defaults(run=run_litellm)


def run_litellm(args: argparse.Namespace) -> None:
    """Write the config and the module, and print their paths."""
    from satlight.serving.settings import ServeSettings
    from satlight.serving.standalone import export_litellm

    settings = ServeSettings(
        args.router, args.config, args.default, rule=args.rule, api_key_env=args.api_key_env, allow=tuple(args.allow)
    )
    for path in export_litellm(settings, args.to):
        print(path)


def _add_vllm_sr(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "export-vllm-sr",
        help="write training data and selectors for vLLM Semantic Router",
        description="Write training_data.jsonl and, with --vectors, knn_model.json and mlp_model.json, fitted on the "
        "train and validation rows of the records.",
    )
    add_log_options(parser)
    parser.add_argument("--to", required=True, type=user_path, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--vectors",
        type=user_path,
        metavar="FILE",
        help="vectors of the instructions by the gateway's embedding model: .npy, a row per instruction, or .parquet "
        "with instruction_id and vector",
    )
    parser.add_argument(
        "--category-column",
        default="task",
        metavar="NAME",
        help="column with the gateway's categories; other values count as 'other' (default: task)",
    )
    parser.add_argument("--models", nargs="+", default=["knn", "mlp"], choices=("knn", "mlp"), help="default: both")
    parser.add_argument("--seed", type=int, default=0, help="seed of splits and of the MLP (default: 0)")
    parser.set_defaults(run=run_vllm_sr)


def run_vllm_sr(args: argparse.Namespace) -> None:
    """Write the files and print their paths."""
    from satlight.baselines import vllm_sr
    from satlight.records import open_records, split_records

    records = open_records(
        args.records, score_column=args.score_column, candidates=args.candidates, datasets=args.datasets
    )
    records = records.with_splits(split_records(records, seed=args.seed)).filter(splits=["train", "validation"])
    categories = vllm_sr.categories(records, args.category_column)
    paths = [vllm_sr.write_training_data(records, categories, args.to)]
    if args.vectors is not None:
        vectors_ND = vllm_sr.read_vectors(args.vectors, records, open_records(args.records))
        paths += vllm_sr.write_models(records, vectors_ND, categories, args.to, args.models, args.seed)
    for path in paths:
        print(path)
