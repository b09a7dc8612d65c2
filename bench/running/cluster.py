"""A Ray cluster: joining or starting one, and what each worker claims of it.

This module needs the extra `ray`.
"""

import os
import signal
import socket
import threading

import ray
import torch

from bench.common.errors import UserError
from bench.common.strangers import message_of
from bench.running.config import RunConfig

CONNECT_S = 10.0  # The wait for the address of a cluster. Ray would try for minutes.


def connect(address: str | None, count: int) -> None:
    """Join the cluster at `address`. None: start one here, with a core for each worker at least."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    at_end = signal.getsignal(signal.SIGTERM)  # Ray puts a handler of its own in its place.
    try:
        host, _, port = (address or "").rpartition(":")
        if host and port.isdecimal():
            socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
        if address is not None:
            ray.init(address=address, **quiet)
        else:
            cores = max(count, torch.get_num_threads())
            ray.init(
                address="local",
                num_cpus=cores,
                include_dashboard=False,
                object_store_memory=1 << 27,
                **quiet,
            )
    except (OSError, OverflowError, ValueError, RuntimeError) as error:
        what = "no local cluster can be started"
        if address:
            what = f"the cluster at {address!r} cannot be joined"
        raise UserError(f"Ray: {what}: {message_of(error)}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, at_end)


def gpus_each(config: RunConfig) -> int:
    """How many GPUs a worker needs. 0: it works on the CPU."""
    device = config.device
    if device == "balanced":
        if config.gpus is None:
            raise UserError(
                "--device balanced with --workers needs --gpus: the number of GPUs that each "
                "worker's model takes"
            )
        return config.gpus
    if device == "auto":
        return int(ray.cluster_resources().get("GPU", 0) > 0)
    if device not in ("cpu", "cuda"):
        raise UserError(
            f"--device {device!r} names one device; workers share out all of them: use cuda, cpu "
            "or balanced"
        )
    return int(device == "cuda")


def cpus_each(count: int, gpus: int) -> int:
    """The cores that each of `count` workers claims. UserError where the workers do not fit.

    On the CPU they are an equal share of all cores. Beside GPUs it is one core.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def room(cpus: int) -> int:
        """How many workers of `cpus` cores fit, each on one machine."""
        by_cpu = [int(node.get("CPU", 0) // cpus) for node in nodes]
        if not gpus:
            return sum(by_cpu)
        by_gpu = [int(node.get("GPU", 0) // gpus) for node in nodes]
        return sum(map(min, by_cpu, by_gpu))

    if room(1) < count:
        all_cpus, all_gpus = (sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
        needs = f"{gpus} GPUs and a CPU" if gpus else "a CPU"
        raise UserError(
            f"--workers is {count}, and each needs {needs} on one machine; Ray has {all_cpus:.0f} "
            f"CPUs and {all_gpus:.0f} GPUs on {len(nodes)} machines: at most {room(1)} workers"
        )
    most = 1 if gpus else int(max(node.get("CPU", 0) for node in nodes))
    return max(cpus for cpus in range(1, most + 1) if room(cpus) >= count)
