"""Shards on this machine: in this process, or on several that are replaced when they die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

import torch

from .config import BatchConfig
from .manifest import Shard
from .shards import ShardRecord, run_shard

ATTEMPTS = 3
"""How often a shard is begun whose worker dies each time."""
_NEVER_STARTED = (
    "a worker process ended before it began. A script that gives workers more than 1 is begun again by each of them: "
    'put what it does under `if __name__ == "__main__":`.'
)
Run: TypeAlias = Callable[[Shard, BatchConfig], ShardRecord]
Outcome: TypeAlias = tuple[Shard, ShardRecord | None]
"""The record is None where every worker that took the shard died."""


def run_here(
    shards: Iterable[Shard], config: BatchConfig, progress: Callable[[int], Any]
) -> Generator[Outcome, None, None]:
    """Run each in this process when its outcome is asked for."""
    for shard in shards:
        yield shard, run_shard(shard, config, progress)


def run_in_processes(
    shards: Iterable[Shard], config: BatchConfig, progress: Callable[[int], Any], workers: int
) -> Generator[Outcome, None, None]:
    """Run shards on ``workers`` processes, in any order; each begins when a worker is free.

    A worker that dies (out of memory, a crash in a library) is replaced and its shard begun again, three
    times in all. The machine's cores are shared out between the workers' threads.

    Raises:
        RuntimeError: a worker cannot start.
        Exception: what `run_shard` raised; the other workers are stopped.
    """
    queue = iter(shards)
    threads = max(1, _cores() // workers)
    idle = [_Worker(threads) for _ in range(workers)]
    busy: dict[Future[ShardRecord], tuple[_Worker, Shard, int]] = {}
    try:
        while True:
            while idle and (shard := next(queue, None)) is not None:
                worker = idle.pop()
                busy[worker.submit(run_plainly, run_shard, shard, config)] = worker, shard, 1
            if not busy:
                return
            for done in wait(busy, return_when=FIRST_COMPLETED).done:
                worker, shard, attempt = busy.pop(done)
                try:
                    record = done.result()
                except BrokenProcessPool:
                    if not worker.started:
                        raise RuntimeError(_NEVER_STARTED) from None
                    record = None
                    if attempt < ATTEMPTS:
                        busy[worker.submit(run_plainly, run_shard, shard, config)] = worker, shard, attempt + 1
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
    """A process that runs one shard after the other: a pool of its own, so that a death tells which shard it was."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._start()

    def _start(self) -> None:
        # Not forked: a copy of a process with torch's threads in it may hang.
        context = multiprocessing.get_context("spawn")
        watched, self._tether = context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(1, context, _prepare, (watched, self._threads))
        self._first = self._pool.submit(os.getpid)

    @property
    def started(self) -> bool:
        """Whether the process has come as far as to do anything."""
        return self._first.done() and self._first.exception() is None

    def submit(self, *task: Any) -> Future[Any]:
        try:
            return self._pool.submit(*task)
        except BrokenProcessPool:  # it has died
            self.stop()
            self._start()
            return self._pool.submit(*task)

    def stop(self) -> None:
        self._tether.close()
        self._pool.shutdown()


def _prepare(watched: Connection, threads: int) -> None:
    """Make this process a worker, which ends at once when its parent stops it or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and stops us
    threading.Thread(target=_end_with_parent, args=(watched,), daemon=True).start()
    torch.set_num_threads(threads)


def _end_with_parent(watched: Connection) -> None:
    with suppress(EOFError, OSError):  # nothing is ever sent
        watched.recv()
    os._exit(1)


def run_plainly(run: Run, shard: Shard, config: BatchConfig) -> ShardRecord:
    """``run``, whose errors become `plain`."""
    try:
        return run(shard, config)
    except Exception as error:
        raise plain(error) from None


def plain(error: Exception) -> Exception:
    """``error`` as one of Python's own, since those of libraries may not survive the way to another process."""
    for kind in (FileNotFoundError, OSError, ImportError, ValueError):  # what the command line explains
        if isinstance(error, kind):
            return kind(str(error))
    return RuntimeError(f"{type(error).__name__}: {error}")
