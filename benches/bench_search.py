"""The exact search of a space of more than 1e12 configurations: wall time, work and memory.

Run with `python benches/bench_search.py`; prints a Markdown table. Three models (dense, mixture of experts, latent
attention) on every accelerator of the catalogue, 32 layouts, three weight formats, two KV formats, 4,096 batches and
131,072 contexts. Before anything is timed every question is put to both methods on parts of the space that a scan can
do, and the rows must be equal. The rate that a scan would need for the same time is configurations / seconds.
"""

from __future__ import annotations

import resource
import statistics
import time

import numpy as np

import roofsim as rs
from roofsim.catalog import accelerator_names

MODELS = ["llama-3.1-70b", "qwen3-235b-a22b", "deepseek-v3.1"]
AXES = {
    "tensor_parallel_size": [1, 2, 4, 8],
    "pipeline_parallel_size": [1, 2],
    "data_parallel_size": [1, 2],
    "expert_parallel_size": [1, 8],
    "weight_dtype": ["auto", "fp8", "int4"],
    "kv_cache_dtype": ["auto", "fp8"],
    "engine": "vllm",
    "capacity_mode": "runtime",
}
BATCHES, CONTEXTS = range(1, 4097), range(1, 131_073)
SERVED = ["fits", "time_s <= 0.03", "context_tokens >= 8192"]
QUESTIONS = {
    "best-of, fits, 30 ms": lambda s, **o: s.top_k(1, by="tokens_per_s_per_gpu", where=SERVED[:2], **o),
    "top-100, fits, 30 ms, 8k context": lambda s, **o: s.top_k(100, by="tokens_per_s_per_gpu", where=SERVED, **o),
    "top-100 by price, same": lambda s, **o: s.top_k(100, by="usd_per_mtok", where=SERVED, **o),
    "top-10,000, same": lambda s, **o: s.top_k(10_000, by="tokens_per_s_per_gpu", where=SERVED, **o),
    "top-100 by MFU, fits": lambda s, **o: s.top_k(100, by="mfu", where="fits", **o),
    "front: per GPU, per user; fits": lambda s, **o: s.pareto(
        ["tokens_per_s_per_gpu", "tokens_per_s_per_user"], where="fits", **o
    ),
    "front: price, per user, devices; fits, 8k": lambda s, **o: s.pareto(
        ["usd_per_mtok", "tokens_per_s_per_user", "num_devices"], where=["fits", "context_tokens >= 8192"], **o
    ),
    "front: time, context; fits, 32 sequences": lambda s, **o: s.pareto(
        ["time_s", "context_tokens"], where=["fits", "batch_size >= 32"], **o
    ),
}
PARTS = {
    "best rows": (range(1, 4097, 13), range(8190, 8210)),
    "all magnitudes": ([1, 2, 3, 60, 61, 64, 250, 256, 1000, 4096], range(1, 131_073, 4001)),
    "ties": ([64, 64, 1, 1, 64], [9000, 8192, 9000, 131_072, 8192]),
}


def main() -> None:
    """Print the table."""
    devices = list(accelerator_names())
    for batches, contexts in PARTS.values():
        part = rs.SweepSpace(MODELS, devices, batch_size=batches, context_tokens=contexts, **AXES)
        for name, ask in QUESTIONS.items():
            scan, search = ask(part, method="scan"), ask(part, method="search")
            assert scan.indices == search.indices, name
            assert np.array_equal(scan.values, search.values), name
    space = rs.SweepSpace(MODELS, devices, batch_size=BATCHES, context_tokens=CONTEXTS, **AXES)
    runs = rs.SweepSpace(MODELS, devices, **AXES).run(["status"])["status"] == "ok"
    print(f"{space.num_configurations:.4g} configurations, {len(devices)} accelerators, {len(runs)} combinations")
    print(f"of the other axes; an engine runs {runs.sum()} of them.\n")
    print("| question | rows found | seconds, 1 thread | 2 threads | evaluated | boxes bounded | configurations/s |")
    print("|---|---|---|---|---|---|---|")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, ask in QUESTIONS.items():
        seconds = {}
        for threads in (1, 2):
            times = []
            for _ in range(3):
                start = time.perf_counter()
                found = ask(space, num_threads=threads)
                times.append(time.perf_counter() - start)
            seconds[threads] = statistics.median(times)
        report = found.report
        assert report.method == "search", name
        rate = report.num_configurations / seconds[2]
        work = f"{report.num_evaluated:,} | {report.num_bounded:,}"
        print(f"| {name} | {len(found):,} | {seconds[1]:.3f} | {seconds[2]:.3f} | {work} | {rate:.2g} |", flush=True)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"\nPeak memory of all of them together, above what it was before: {grown:.0f} MiB.")


if __name__ == "__main__":
    main()
