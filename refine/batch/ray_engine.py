"""Shards as Ray tasks: on this machine's cores, or on an existing cluster that shares the output folder."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any

import torch

from .config import BatchConfig
from .manifest import Shard
from .shards import ShardRecord, run_shard
from .workers import ATTEMPTS, Outcome, Run, run_plainly

_PER_CORE = 2
"""Tasks handed to Ray at once, per core: enough that none waits, few enough that no queue grows."""


def run_on_ray(
    shards: Iterable[Shard],
    config: BatchConfig,
    progress: Callable[[int], Any],
    workers: int,
    address: str | None = None,
    run: Run = run_shard,
) -> Generator[Outcome, None, None]:
    """Run shards as Ray tasks of one core (and one GPU, on "cuda") each, in any order.

    A task whose worker or node dies is begun again elsewhere, three times in all.

    Args:
        workers: cores of the Ray that is started here; not used with ``address``.
        address: of a running cluster, "auto" or host:port, whose nodes have regrasp installed and reach objects,
            weights and output folder by the same paths; None to start Ray here and stop it afterwards.

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: there is no cluster at ``address``.
        Exception: what ``run`` raised.
    """
    try:
        import ray
    except ImportError:
        raise ImportError("--engine ray needs Ray: pip install 'regrasp[ray]'.") from None
    ours, running = not ray.is_initialized(), {}
    if ours:
        ray.init(address=address, num_cpus=None if address else workers, log_to_driver=False, logging_level="error",
                 include_dashboard=False if address is None else None)  # fmt: skip
    try:
        gpus = 1 if config.refine.device.startswith("cuda") else 0
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=ATTEMPTS - 1)(_one_thread)
        shared, code = ray.put(config), ray.put(run)
        queue = iter(shards)
        while True:
            room = _PER_CORE * max(1, int(ray.cluster_resources().get("CPU", 1)))
            while len(running) < room and (shard := next(queue, None)) is not None:
                running[task.remote(code, shard, shared)] = shard
            if not running:
                return
            done, _ = ray.wait(list(running), num_returns=1)
            shard = running.pop(done[0])
            record = _record(done[0])
            progress(len(shard.rows))
            yield shard, record
    finally:
        for reference in running:  # none is left unless something was raised
            ray.cancel(reference, force=True)
        if ours:
            ray.shutdown()


def _one_thread(run: Run, shard: Shard, config: BatchConfig) -> ShardRecord:
    """``run`` on the one core that Ray counts for a task."""
    torch.set_num_threads(1)
    return run_plainly(run, shard, config)


def _record(reference: Any) -> ShardRecord | None:
    """A task's record; None when its workers died. Raises what the task raised."""
    import ray

    try:
        return ray.get(reference)
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError):
        return None
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
