"""One real control plane: etcd, kube-apiserver, controllers, a scheduler, on the loopback."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tools.real_kubernetes.binaries import Binaries
from tools.real_kubernetes.certificates import Authority, authority

# What the stand-in's network gives its pods (docs/stand-in.md).
SERVICE_RANGE, SERVICE_IP = "10.96.0.0/16", "10.96.0.1"
_NAMES = ("localhost", "127.0.0.1", SERVICE_IP, "kubernetes.default.svc", "kubernetes.default")
# Pods reach the server at the Service's address; this one only has to be no loopback address.
_ADVERTISED = "10.250.0.1"
_VOLUME_CONTROLLERS = (
    "persistentvolume-binder",
    "persistentvolume-expander",
    "persistentvolumeclaim-protection",
    "persistentvolume-protection",
)
_READY_S = 90.0
_LOOK_S = 0.2


class Broken(Exception):
    """A program of the control plane ended, or did not become ready; with the end of its log."""


@dataclass
class ControlPlane:
    """A running control plane. ``egress`` is the socket through which it reaches kubelets."""

    directory: Path
    binaries: Binaries
    url: str = ""
    etcd: str = ""
    _running: list[tuple[str, subprocess.Popen[bytes]]] = field(default_factory=list)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.directory / "admin.kubeconfig"

    @property
    def egress(self) -> Path:
        return self.directory / "egress.sock"

    def start(self, storage_root: Path | None) -> None:
        """Start everything and wait until the API server is ready.

        ``storage_root`` is where volumes of the stand-in's StorageClass get their directories;
        without it there is an API server alone, with no controllers.

        :raises Broken: it did not come up.
        """
        pki = authority(self.directory / "pki")
        self.etcd = self._etcd()
        port = _free_port()
        self.url = f"https://127.0.0.1:{port}"
        self._api_server(pki, self.etcd, port)
        self._write_kubeconfig(pki, "admin", "admin", ("system:masters",))
        self._ready(pki)
        if storage_root is not None:
            storage_root.mkdir(parents=True, exist_ok=True)
            self._run_controllers(pki, storage_root)

    def _run_controllers(self, pki: Authority, storage_root: Path) -> None:
        self._controllers(pki)
        only = ["claims", "volumes"]
        if self.binaries.scheduler:
            config = self._write_kubeconfig(pki, "scheduler", "system:kube-scheduler")
            self._spawn(
                "kube-scheduler",
                [
                    str(self.binaries.scheduler),
                    f"--kubeconfig={config}",
                    "--leader-elect=false",
                    "--secure-port=0",
                ],
            )
        else:
            only.append("scheduler")
        # Kubernetes brings no provisioner; this is the stand-in's, as a CSI driver would be.
        self._spawn(
            "provisioner",
            [
                sys.executable,
                "-m",
                "pytest_pgo_eks.local.controllers",
                f"--kubeconfig={self.kubeconfig}",
                f"--storage-root={storage_root}",
                f"--only={','.join(only)}",
            ],
        )

    def stop(self) -> None:
        """End every program, the last one started first."""
        for _, process in reversed(self._running):
            process.terminate()
        for _, process in reversed(self._running):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()

    def wait(self) -> None:
        """Return when one of the programs has ended."""
        while all(process.poll() is None for _, process in self._running):
            time.sleep(_LOOK_S)

    def _etcd(self) -> str:
        client, peer = _free_port(), _free_port()
        url = f"http://127.0.0.1:{client}"
        self._spawn(
            "etcd",
            [
                str(self.binaries.etcd),
                f"--data-dir={self.directory / 'etcd'}",
                f"--listen-client-urls={url}",
                f"--advertise-client-urls={url}",
                f"--listen-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-cluster=default=http://127.0.0.1:{peer}",
                # Nothing here outlives the run.
                "--unsafe-no-fsync",
            ],
        )
        return url

    def _api_server(self, pki: Authority, etcd: str, port: int) -> None:
        certificate, key = pki.issue("apiserver", "kube-apiserver", names=_NAMES)
        kubelet = pki.issue(
            "apiserver-kubelet-client", "kube-apiserver-kubelet-client", groups=["system:masters"]
        )
        selector = self.directory / "egress.json"
        selector.write_text(json.dumps(_egress(self.egress)), "utf-8")
        sa_key = pki.directory / "sa.key"
        self._spawn(
            "kube-apiserver",
            [
                str(self.binaries.api_server),
                f"--etcd-servers={etcd}",
                "--bind-address=127.0.0.1",
                f"--secure-port={port}",
                f"--advertise-address={_ADVERTISED}",
                "--endpoint-reconciler-type=none",
                f"--service-cluster-ip-range={SERVICE_RANGE}",
                "--authorization-mode=Node,RBAC",
                "--allow-privileged=true",
                f"--client-ca-file={pki.file}",
                f"--tls-cert-file={certificate}",
                f"--tls-private-key-file={key}",
                f"--kubelet-client-certificate={kubelet[0]}",
                f"--kubelet-client-key={kubelet[1]}",
                "--kubelet-preferred-address-types=InternalIP",
                "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
                f"--service-account-key-file={sa_key}",
                f"--service-account-signing-key-file={sa_key}",
                f"--egress-selector-config-file={selector}",
            ],
        )

    def _controllers(self, pki: Authority) -> None:
        who = "system:kube-controller-manager"
        config = self._write_kubeconfig(pki, "controller-manager", who)
        self._spawn(
            "kube-controller-manager",
            [
                str(self.binaries.controllers),
                f"--kubeconfig={config}",
                "--leader-elect=false",
                "--secure-port=0",
                "--use-service-account-credentials=true",
                f"--root-ca-file={pki.file}",
                f"--service-account-private-key-file={pki.directory / 'sa.key'}",
                # The provisioner below binds and expands what it made, as one program.
                "--controllers="
                + ",".join(["*", *(f"-{one}-controller" for one in _VOLUME_CONTROLLERS)]),
            ],
        )

    def _write_kubeconfig(
        self, pki: Authority, name: str, common: str, groups: Sequence[str] = ()
    ) -> Path:
        certificate, key = pki.issue(name, common, groups=groups)
        path = self.directory / f"{name}.kubeconfig"
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "real",
                    "cluster": {"server": self.url, "certificate-authority": str(pki.file)},
                }
            ],
            "users": [
                {
                    "name": name,
                    "user": {"client-certificate": str(certificate), "client-key": str(key)},
                }
            ],
            "contexts": [{"name": "real", "context": {"cluster": "real", "user": name}}],
            "current-context": "real",
        }
        path.write_text(json.dumps(content, indent=1), "utf-8")
        return path

    def _spawn(self, name: str, command: Sequence[str]) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                # Should this process be killed, they end as well.
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory if name != "provisioner" else Path(__file__).parents[2],
                start_new_session=True,
            )
        self._running.append((name, process))

    def _ready(self, pki: Authority) -> None:
        tls = ssl.create_default_context(cafile=str(pki.file))
        tls.load_cert_chain(pki.directory / "admin.crt", pki.directory / "admin.key")
        ends = time.monotonic() + _READY_S
        said = "nothing"
        while time.monotonic() < ends:
            for name, process in self._running:
                if process.poll() is not None:
                    raise Broken(f"{name} ended with {process.returncode}: {self._tail(name)}")
            address, _, port = self.url.removeprefix("https://").partition(":")
            asked = http.client.HTTPSConnection(address, int(port), context=tls, timeout=5)
            try:
                asked.request("GET", "/readyz")
                answer = asked.getresponse()
                if answer.status == 200:
                    return
                said = answer.read().decode("utf-8", "replace")
            except OSError as error:
                said = str(error)
            finally:
                asked.close()
            time.sleep(_LOOK_S)
        raise Broken(f"kube-apiserver is not ready after {_READY_S:.0f} s: {said}")

    def _tail(self, name: str) -> str:
        lines = (self.directory / f"{name}.log").read_text("utf-8", "replace").splitlines()
        return " | ".join(lines[-5:])


@contextmanager
def running(
    directory: Path, binaries: Binaries, storage_root: Path | None
) -> Iterator[ControlPlane]:
    """Run a control plane in ``directory`` (which must not exist) until the block ends.

    ``storage_root`` as in :meth:`ControlPlane.start`.
    """
    directory.mkdir(parents=True)
    plane = ControlPlane(directory, binaries)
    try:
        plane.start(storage_root)
        yield plane
    finally:
        plane.stop()


def _egress(socket_path: Path) -> dict[str, object]:
    """Say that kubelets (``cluster``) are reached through a proxy, all else directly."""
    proxy = {
        "proxyProtocol": "HTTPConnect",
        "transport": {"uds": {"udsName": str(socket_path)}},
    }
    return {
        "apiVersion": "apiserver.k8s.io/v1beta1",
        "kind": "EgressSelectorConfiguration",
        "egressSelections": [
            {"name": "cluster", "connection": proxy},
            {"name": "controlplane", "connection": {"proxyProtocol": "Direct"}},
            {"name": "etcd", "connection": {"proxyProtocol": "Direct"}},
        ],
    }


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port
