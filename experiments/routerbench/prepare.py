"""Write RouterBench as training configs read it: the question as the text, and the test rows of its bench marked.

    python experiments/routerbench/prepare.py configs/bench/routerbench.yaml --to data/routerbench_questions

The draw of the test rows has no seed, so that ``fit`` draws the validation rows of a seed as the bench does.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from satlight.bench.cells import open_data
from satlight.bench.config import DataSpec, load_config
from satlight.records import PerformanceRecords, save_records, split_records


def prepared(data: DataSpec) -> PerformanceRecords:
    """Return the records of a bench's data with test rows, and without validation rows."""
    records = open_data(data)
    split = split_records(
        records, validation_fraction=0.0, group_column=data.group_column, test_fraction=data.test_fraction
    )
    return records.with_splits(split)


def main() -> None:
    """Write the records folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", type=Path, help="config of a bench with one data entry")
    parser.add_argument("--to", type=Path, required=True, help="records folder to create")
    args = parser.parse_args()
    (data,) = load_config(args.bench).data
    save_records(prepared(data), args.to)


if __name__ == "__main__":
    main()
