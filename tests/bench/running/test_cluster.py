"""What workers claim of a Ray cluster. No cluster is started."""

import pytest

from bench.common.errors import UserError

pytest.importorskip("ray", reason="Ray is not installed: pip install 'medusa-bench[ray]'")
from bench.running import cluster


def test_more_gpus_than_there_are(monkeypatch):
    nodes = [
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 4.0}},
        {"Alive": True, "Resources": {"CPU": 3.0, "GPU": 1.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    monkeypatch.setattr(cluster.ray, "nodes", lambda: nodes)
    assert cluster.cpus_each(5, 1) == 1 and cluster.cpus_each(2, 2) == 1
    assert [cluster.cpus_each(count, 0) for count in (1, 2, 3)] == [8, 4, 3]
    says = r"needs 2 GPUs and a CPU on one machine; Ray has 11 CPUs and 5 GPUs.* at most 2"
    with pytest.raises(UserError, match=says):
        cluster.cpus_each(3, 2)
