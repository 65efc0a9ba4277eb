"""The kubelet over the real API server and network, in namespaces of its own.

Scenarios of one test share a bed and run side by side: most of their time is waiting.
"""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from kubelet_bed import run

pytestmark = pytest.mark.skipif(
    not all(shutil.which(p) for p in ("bwrap", "unshare", "nsenter", "ip", "nft")),
    reason="needs bubblewrap, util-linux, iproute2 and nftables",
)


def check(results: dict[str, Any], *names: str) -> None:
    """Fail with the tracebacks of every scenario that failed."""
    assert results.keys() == set(names)
    failed = {name: result["error"] for name, result in results.items() if "error" in result}
    assert not failed, "\n".join(f"{name}:\n{text}" for name, text in failed.items())


def together(module: str, *names: str) -> None:
    check(run(*names, module=module), *names)


def test_pods_start() -> None:
    together(
        "kubelet_scenarios",
        "quick_start",
        "shared_processes",
        "separate_processes",
        "environment",
        "users",
        "nodes",
    )


def test_pods_start_in_order_and_again() -> None:
    together(
        "kubelet_scenarios", "init_containers", "failed_init", "jobs", "crash_loop", "sidecars"
    )


def test_pods_end() -> None:
    together(
        "kubelet_scenarios",
        "graceful_end",
        "frozen_end",
        "forced_end",
        "shortened_end",
        "early_end",
        "lost_node",
        "cut_node",
    )


def test_pods_that_cannot_start() -> None:
    together("kubelet_scenarios", "no_image", "late_config", "no_program", "limits")


def test_volumes() -> None:
    together(
        "volume_scenarios",
        "late_source",
        "projected",
        "account_token",
        "claim",
        "limited_claim",
        "empty_dirs",
        "host_path",
    )


def test_probes() -> None:
    together(
        "probe_scenarios",
        "readiness",
        "asked_readiness",
        "frozen_liveness",
        "exec_probe",
        "slow_exec_probe",
        "startup_probe",
        "never_started",
        "encrypted",
        "gone_port",
    )


def test_streams() -> None:
    together(
        "stream_scenarios",
        "execution",
        "left_behind",
        "terminal",
        "log_options",
        "followed_log",
        "attachment",
        "python_client",
        "kubectl",
        "kubectl_run",
        "kubectl_forward",
        "strangers",
    )


@pytest.mark.skipif(not shutil.which("pgbouncer"), reason="needs pgbouncer")
def test_programs() -> None:
    together("program_scenarios", "postgres", "pgbouncer", "backup_job")


def test_nothing_is_left_behind() -> None:
    together("kubelet_scenarios", "no_leaks")
