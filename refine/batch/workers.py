"""Shards on this machine: in this process, or on several that are replaced when they die."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from typing import Any

from .config import BatchConfig
from .manifest import Shard
from .shards import ShardRecord, run_shard

ATTEMPTS = 3
"""How often a shard is begun whose worker dies each time."""


Outcome = tuple[Shard, ShardRecord | None]
"""The record is None where every worker that took the shard died."""


def run_here(
    shards: Iterable[Shard], config: BatchConfig, progress: Callable[[int], Any]
) -> Generator[Outcome, None, None]:
    """Run each in this process when its outcome is asked for."""
    for shard in shards:
        yield shard, run_shard(shard, config, progress)


def run_in_processes(
    shards: Iterable[Shard],
    config: BatchConfig,
    progress: Callable[[int], Any],
    workers: int,
    run: Callable[[Shard, BatchConfig], ShardRecord] = run_shard,
) -> Generator[Outcome, None, None]:
    """Run shards on ``workers`` processes, in any order; each begins when a worker is free.

    A worker that dies (out of memory, a crash in a library) is replaced and its shard begun again, three
    times in all. The machine's cores are shared out between the workers' threads.

    Raises:
        Exception: what ``run`` raised; the other workers are stopped.
    """
    from multiprocessing.connection import wait

    queue = iter(shards)
    threads = max(1, _cores() // workers)
    idle = [_Worker(config, threads, run) for _ in range(workers)]
    busy: dict[Any, tuple[_Worker, Shard, int]] = {}
    try:
        while True:
            while idle and (shard := next(queue, None)) is not None:
                worker = idle.pop()
                worker.send(shard)
                busy[worker.connection] = worker, shard, 1
            if not busy:
                return
            for connection in wait(list(busy)):
                worker, shard, attempt = busy.pop(connection)
                record = worker.receive()
                if record is None:
                    worker.stop()
                    worker = _Worker(config, threads, run)
                    if attempt < ATTEMPTS:
                        worker.send(shard)
                        busy[worker.connection] = worker, shard, attempt + 1
                        continue
                idle.append(worker)
                progress(len(shard.rows))
                yield shard, record
    finally:
        for worker in [*idle, *(worker for worker, _, _ in busy.values())]:
            worker.stop()


def _cores() -> int:
    """Cores to share out: those this process may use, or fewer where OMP_NUM_THREADS says so."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(available, int(limit)) if limit.isdecimal() else available


class _Worker:
    """A process that runs one shard after the other."""

    def __init__(self, config: BatchConfig, threads: int, run: Callable[..., ShardRecord]) -> None:
        import multiprocessing

        # Not forked: a copy of a process with torch's threads in it may hang.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, config, threads, run), daemon=True)
        self._process.start()
        theirs.close()

    def send(self, shard: Shard) -> None:
        with suppress(OSError):  # it has died, which `receive` reports
            self.connection.send(shard)

    def receive(self) -> ShardRecord | None:
        """The record of the shard; None when the worker has died. Raises what running it raised."""
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            return None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


def _serve(connection: Any, config: BatchConfig, threads: int, run: Callable[..., ShardRecord]) -> None:
    """What a worker does, until its connection or its parent goes."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and stops us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    while True:
        try:
            shard = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer: Any = run(shard, config)
        except Exception as error:
            answer = plain(error)
        connection.send(answer)


def plain(error: Exception) -> Exception:
    """``error`` as one of Python's own, since those of libraries may not survive the way to another process."""
    for kind in (FileNotFoundError, OSError, ImportError, ValueError):  # what the command line explains
        if isinstance(error, kind):
            return kind(str(error))
    return RuntimeError(f"{type(error).__name__}: {error}")


def _end_with_parent() -> None:
    """A parent that is killed cannot stop its workers, so they watch it."""
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
