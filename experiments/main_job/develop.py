"""Compare routers of the simulated zoo on instructions that no config reads; used to choose configs/full.yaml.

    python experiments/main_job/develop.py runs/NAME/1/router ...

Draws instructions 12,000 to 15,999 of the zoo of seed 0 (the main job reads the first 6,000), without texts that occur
before, and keeps 700 of them. Prints the share of the reachable gap that each router closes, by true probabilities,
and how many of the 30 candidates it chooses. The second figure is the share among twelve further candidates of the
same zoo, known to the router by their results on its core items alone; 400 instructions.
"""

from __future__ import annotations

import argparse

import numpy as np

from satlight import Router
from satlight.metrics.functional import gap_closed
from satlight.records import PerformanceRecords
from satlight.records.simulated import SimulatedZoo
from satlight.types import AptitudeResults, Request

USED, DRAWN, SEEN, ALL = 12_000, 16_000, 30, 42


def share(router: Router, fresh: PerformanceRecords, used: PerformanceRecords) -> tuple[float, int]:
    """Return the share of the reachable gap closed between the candidates of ``fresh``, and how many are chosen."""
    requests, names, size = [Request(text) for text in fresh.texts], fresh.model_ids, 64
    blocks = [router.log_odds(requests[i : i + size], names) for i in range(0, len(requests), size)]
    choice_N = np.concatenate(blocks).argmax(1)
    best = np.mean([used.outcomes[used.datasets == name].mean(0) for name in np.unique(used.datasets)], 0).argmax()
    assert fresh.expected is not None
    choices = (choice_N, np.full(len(choice_N), best), fresh.expected.argmax(1))
    accuracies = [
        np.mean([expected_N[fresh.datasets == name].mean() for name in np.unique(fresh.datasets)])
        for expected_N in (fresh.expected[np.arange(len(choice_N)), choice] for choice in choices)
    ]
    return gap_closed(*map(float, accuracies)), len(np.unique(choice_N))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("routers", nargs="+", help="router folders")
    zoo = SimulatedZoo(num_instructions=DRAWN, num_candidates=ALL).generate()
    ids, seen, new = zoo.instructions["instruction_id"].to_list(), zoo.model_ids[:SEEN], zoo.model_ids[SEEN:]
    before, used = set(zoo.texts[:USED]), zoo.rows(np.arange(USED))
    fresh = np.array([row for row in range(USED, DRAWN) if zoo.texts[row] not in before])
    rng = np.random.default_rng(0)
    known, unknown = (np.sort(rng.choice(fresh, size, replace=False)) for size in (700, 400))
    for path in parser.parse_args().routers:
        router = Router.from_pretrained(path)
        reach, chosen = share(router, zoo.rows(known).filter(candidates=seen), used.filter(candidates=seen))
        print(f"{path}: reach {100 * reach:.1f} %, {chosen} of {SEEN} candidates chosen", end="; ", flush=True)
        core = [ids.index(item) for item in sorted(router.test.item_ids)]  # type: ignore[attr-defined]
        told = tuple(ids[row] for row in core), tuple(zoo.texts[row] for row in core)
        for column, candidate in enumerate(zoo.candidates[SEEN:], SEEN):
            results = AptitudeResults(*told, zoo.outcomes[core, column], tuple(zoo.datasets[core].tolist()))
            router = router.admit(candidate, results)
        reach, _ = share(router, zoo.rows(unknown).filter(candidates=new), used.filter(candidates=new))
        print(f"{ALL - SEEN} new candidates: reach {100 * reach:.1f} %", flush=True)


if __name__ == "__main__":
    main()
