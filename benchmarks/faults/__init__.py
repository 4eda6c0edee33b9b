"""Parts of ``benchmarks/reliability.py``: kills, mutated inputs, and full disks."""
