"""Lifecycle hooks: postStart and preStop as exec, httpGet, tcpSocket or sleep."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from pytest_pgo_eks.local.kubelet import execs, probing
from pytest_pgo_eks.local.kubelet.containers import Container
from pytest_pgo_eks.local.kubelet.shared import Shared
from pytest_pgo_eks.local.objects import Obj


async def run_hook(
    hook: Mapping[str, Any],
    shared: Shared,
    container_spec: Obj,
    container: Container,
    *,
    pod_ip: str,
    timeout_s: float,
) -> str:
    """Run a hook; return what went wrong, empty for nothing."""
    try:
        if hook.get("exec"):
            argv = list(hook["exec"].get("command") or [])
            done = await execs.run(shared.home, container, argv, timeout_s=timeout_s)
            return "" if done.exit_code == 0 else f"exit code {done.exit_code}: {done.output}"
        if hook.get("sleep"):
            await asyncio.sleep(min(timeout_s, float(hook["sleep"]["seconds"])))
            return ""
        action = hook.get("httpGet") or hook.get("tcpSocket") or {}
        host, port = (
            action.get("host") or pod_ip,
            probing.port_number(action["port"], container_spec),
        )
        if hook.get("tcpSocket"):
            attempt = await probing.tcp(host, port, shared.sockets, timeout_s)
        else:
            attempt = await probing.http(
                action, host, port, shared.sockets, tls=shared.probe_tls, timeout_s=timeout_s
            )
    except TimeoutError:
        return f"not finished within {timeout_s:g} s"
    except (execs.NotRunning, OSError, ValueError, KeyError) as error:
        return str(error)
    return "" if attempt.success else attempt.output
