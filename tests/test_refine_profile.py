"""The profile counts what it says it counts."""

from __future__ import annotations

import time
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture
def module(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    return import_module("refine_profile")


def test_traffic_counts_what_is_read_and_written_but_no_views(module):
    a, b = torch.zeros(10, 20), torch.zeros(10, 20)
    with module.Traffic() as traffic:
        c = a + b
        c.T[3:].unsqueeze(0).expand(2, -1, -1)
        a @ b.T
    assert traffic.bytes == (3 + 2) * a.nbytes + 10 * 10 * 4
    assert traffic.calls == 2


def test_a_stopwatch_times_calls_within_a_part_alone(module):
    class Solver:
        @staticmethod
        def query() -> None:
            time.sleep(0.01)

        def solve(self) -> int:
            self.query()
            return 7

    owner = Solver()
    watch = module.Stopwatch()
    with watch.watching([("solve", Solver, "solve")]), watch.watching([("query", Solver, "query")], "solve"):
        owner.query()  # outside of the part: not counted
        assert owner.solve() == 7
    assert 0.01 <= watch.seconds["query"] <= watch.seconds["solve"]
    before = dict(watch.seconds)
    owner.solve()
    assert watch.seconds == before  # the functions are themselves again


def test_the_table_divides_by_the_rates_of_the_machine(module):
    found = module.Profile({"in all": 0.02, "resolve contact": 0.01, "distance lookups": 0.004}, 4e7, 3e7, 900)
    text = module.table({1: found}, (2e10, 1e10), 64)
    assert "| at 20 GFLOP/s, ms | 2.00 |" in text
    assert "| at 10 GB/s, ms | 3.00 |" in text
    assert "| distance lookups | 40 % |" in text


@pytest.mark.slow
def test_the_parts_make_up_the_whole(module):
    found = module.profile(module.Scenes.of(4), 8, 1).parts
    labels = module.labels(module.PARTS)
    assert set(found) >= set(labels)
    assert 0.6 * found["in all"] < sum(found[label] for label in labels) < found["in all"]
