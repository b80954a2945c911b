"""The Ray engine on a cluster of two nodes on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import batch_fakes
import pytest
from batch_fakes import DEADLY, DEADLY_ONCE, fake_config, predictions, with_fate

from refine.batch import Execution, refine_files
from refine.files.input_files import find_inputs
from refine.files.prediction_files import read_predictions, write_predictions

ray = pytest.importorskip("ray")
TESTS = str(Path(__file__).parent)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster whose two nodes have a core each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=80 << 20, include_dashboard=False)
        cluster.wait_for_nodes()
        # The stand-ins are not installed, so the workers are sent them; regrasp itself they have.
        ray.cloudpickle.register_pickle_by_value(batch_fakes)
        yield cluster.address
    finally:
        ray.cloudpickle.unregister_pickle_by_value(batch_fakes)
        ray.shutdown()
        cluster.shutdown()


def test_two_nodes_give_what_one_process_gives(tmp_path, address):
    file = write_predictions(tmp_path / "p.npz", with_fate(predictions(20), 11, DEADLY_ONCE))
    config = fake_config(tmp_path, shard_rows=3)
    seen = []
    execution = Execution(engine="ray", address=address, progress=seen.append)
    (outcome,) = refine_files(find_inputs([file]), tmp_path / "ray", config, execution)
    assert (tmp_path / "log.died").exists()  # a worker was killed, and its task begun again
    assert outcome.summary["status"] == {"refined": 20}
    assert sum(seen) == 20
    alone = replace(config, log=config.log)
    (wanted,) = refine_files(find_inputs([file]), tmp_path / "alone", alone)
    assert outcome.results.read_bytes() == wanted.results.read_bytes()
    assert not ray.is_initialized()  # we connected, so we let go


@pytest.mark.slow
def test_a_shard_that_kills_its_workers_fails_alone(tmp_path, address):
    file = write_predictions(tmp_path / "p.npz", with_fate(predictions(6), 3, DEADLY))
    execution = Execution(engine="ray", address=address)
    (outcome,) = refine_files(find_inputs([file]), tmp_path / "out", fake_config(tmp_path, shard_rows=2), execution)
    status = read_predictions(outcome.results).status
    assert status.tolist() == ["refined"] * 2 + ["failed"] * 2 + ["refined"] * 2
    assert "died" in outcome.summary["failures"]["2"]


@pytest.mark.slow
def test_what_no_row_is_to_blame_for_stops_the_run(tmp_path, address):
    file = write_predictions(tmp_path / "p.npz", predictions(6))
    config = replace(fake_config(tmp_path, shard_rows=2), log=tmp_path / "gone" / "log")
    with pytest.raises(FileNotFoundError, match="gone"):
        list(refine_files(find_inputs([file]), tmp_path / "out", config, Execution("ray", address=address)))


@pytest.mark.slow
def test_the_work_goes_to_both_nodes(tmp_path, address):
    """Tasks of the engine, each telling where it ran."""
    from refine.batch.manifest import Manifest, Shard
    from refine.batch.ray_engine import run_on_ray

    def where(shard: Shard, config: object) -> str:
        import time

        time.sleep(1)  # long enough that one core does not do them all
        return ray.get_runtime_context().get_node_id()

    manifest = Manifest(tmp_path, "", "", {}, 6, 1)
    shards = iter(manifest.shards)
    outcomes = list(run_on_ray(shards, fake_config(tmp_path), lambda count: None, 1, address, run=where))
    assert sorted(shard.number for shard, _ in outcomes) == list(range(6))
    assert len({node for _, node in outcomes}) == 2
