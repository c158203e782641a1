"""Workers on a Ray cluster of two nodes, which stand on this machine."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from concurrent.futures import BrokenExecutor

import psutil
import pytest
from worker_runs import assert_same, killed, n_records, started, when

from misure.cli.reproduce import check_writable
from misure.errors import MisureError
from misure.sweep.on_ray import RayExecutor, _imported


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with room for one worker each; the variables that keep it to this machine hold for drivers as well."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            patch.setenv(name, "token")
        with contextlib.suppress(MisureError):
            _imported(None)
        pytest.importorskip("ray", reason="Ray is not installed: pip install 'misure[ray]'")
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": 80_000_000}
        cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        cluster.add_node(**node)
        yield cluster
        cluster.shutdown()


def workers_of(cluster) -> list[psutil.Process]:
    nodes = [node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()]
    found = []
    for child in [child for node in nodes for child in psutil.Process(node).children()]:
        with contextlib.suppress(psutil.Error):  # which has just ended
            found += [child] if "Worker" in child.name() else []
    return found


def test_a_process_stays_until_it_ends_and_concerns_its_own_call_alone(cluster, tmp_path):
    (tmp_path / "file").touch()
    with RayExecutor(cluster.address, num_cpus=0.5) as executor:
        assert executor.workers == 4
    with RayExecutor(cluster.address) as executor:
        assert executor.workers == 2
        pids = {call.result() for call in [executor.submit(os.getpid) for _ in range(8)]}
        assert pids <= {worker.pid for worker in workers_of(cluster)}
        with pytest.raises(MisureError, match="cannot write"):
            executor.submit(check_writable, tmp_path / "file").result()
        with pytest.raises(ZeroDivisionError):
            executor.submit(divmod, 1, 0).result()
        with pytest.raises(BrokenExecutor, match="its worker process has died"):
            executor.submit(os._exit, 1).result()
        assert executor.submit(abs, -2).result() == 2
        waiting = [executor.submit(time.sleep, 600) for _ in range(5)]
    assert all(call.cancelled() or isinstance(call.exception(), BrokenExecutor) for call in waiting)


def test_what_is_set_where_a_run_is_driven_reaches_workers_of_a_cluster_that_was_there(cluster, monkeypatch):
    monkeypatch.setenv("HF_HOME", "/shared/hub")
    monkeypatch.setenv("OTHER", "here")
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    with RayExecutor(cluster.address) as executor:
        found = [executor.submit(os.getenv, name).result() for name in ("HF_HOME", "OTHER", "WANDB_API_KEY")]
        assert found == ["/shared/hub", None, None]


def test_what_cannot_be_had_is_told_in_a_line(cluster, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as other:
        free = "{}:{}".format(*other.getsockname())
    for address in (free, "nonsense", "host:port"):
        with pytest.raises(MisureError, match=f"^no Ray cluster at runner.address={address}: .+"):
            RayExecutor(address)
    for wants in ({"num_gpus": 1}, {"num_cpus": 2}, {"num_cpus": 0}):
        with pytest.raises(MisureError, match="has room for a worker"):
            RayExecutor(cluster.address, **wants)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MisureError, match=r"pip install 'misure\[ray\]'"):
        RayExecutor()


def test_two_nodes_make_the_records_of_one_process_whatever_is_killed(cluster, tmp_path):
    """And so its tables, which are made from records alone."""
    options = ["runner=ray", f"runner.address={cluster.address}"]
    driver = started(tmp_path, *options, script="run.py")
    when(lambda: n_records(tmp_path) >= 3, driver, tmp_path)
    victim, *_ = workers = workers_of(cluster)
    assert len(workers) == 2
    victim.kill()
    when(lambda: len({*workers_of(cluster)} - {*workers}) == 1 and n_records(tmp_path) >= 8, driver, tmp_path)
    killed(driver)
    _, alive = psutil.wait_procs(workers_of(cluster), timeout=60)
    assert not alive
    assert n_records(tmp_path) < 40
    assert started(tmp_path, *options, script="run.py").wait(timeout=600) == 0
    assert_same(tmp_path, "run.py")
