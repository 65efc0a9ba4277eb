"""A server certificate that has to be replaced because its Secret is gone."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_pgo_eks.errors import ExecProblem
from pytest_pgo_eks.faults.bench import Proof
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.kube.wait import eventually

# A kubelet refreshes mounted Secrets every one to one and a half minutes.
_SERVED_S = 180.0
_POLL_S = 1.0

# Asks the server for TLS as a client does and prints the fingerprint of what it shows. Patroni is
# written in Python, so an instance has one; it need not have openssl.
_ASK = """
import hashlib, socket, ssl, struct
with socket.create_connection(("127.0.0.1", 5432), 5) as plain:
    plain.sendall(struct.pack("!ii", 8, 80877103))
    assert plain.recv(1) == b"S", "the server speaks no TLS"
    context = ssl._create_unverified_context()
    with context.wrap_socket(plain) as secure:
        print(hashlib.sha256(secure.getpeercert(True)).hexdigest())
"""


class CertificateReplaced:
    """The Secret of the servers' certificate deleted, so that the operator issues another.

    Proven by another certificate *served* by every one of ``pods``: a new Secret alone changes
    nothing for a client. The authority stays, so clients that verify it must not notice.
    """

    kind = "certificate-replaced"

    def __init__(self, kube: Kube, namespace: str, secret: str, pods: Sequence[str]) -> None:
        self.target = secret
        self._kube = kube
        self._namespace = namespace
        self._pods = tuple(pods)
        self._before: dict[str, str] = {}
        self._uid = ""

    def inject(self) -> None:
        self._before = self._served()
        found = self._kube.get("Secret", self.target, self._namespace)
        self._uid = found["metadata"]["uid"]
        self._kube.delete("Secret", self.target, self._namespace, uid=self._uid)

    def prove(self) -> Proof:
        def kept() -> list[str]:
            """Return who still serves the old one."""
            now = self._served()
            return [pod for pod in self._pods if now[pod] == self._before[pod]]

        eventually(
            kept,
            accept=lambda pods: not pods,
            within_s=_SERVED_S,
            what="every server to show another certificate",
            successes=1,
            show=lambda pods: f"still the old one: {', '.join(pods)}",
            poll_s=_POLL_S,
        )
        now = self._served()
        told = ", ".join(
            f"{pod} {self._before[pod][:12]}… to {now[pod][:12]}…" for pod in self._pods
        )
        return Proof(f"Secret {self.target} is new, and so is what is served: {told}")

    def undo(self) -> None:
        """Wait until there is one again; the operator makes it."""
        if not self._uid:
            return
        eventually(
            lambda: self._kube.find("Secret", self.target, self._namespace),
            accept=lambda found: found is not None,
            within_s=_SERVED_S,
            what=f"Secret {self.target} to be made again",
            successes=1,
        )

    def _served(self) -> dict[str, str]:
        return {pod: self._fingerprint(pod) for pod in self._pods}

    def _fingerprint(self, pod: str) -> str:
        done = self._kube.exec(
            self._namespace,
            pod,
            ["python3", "-c", _ASK],
            container="database",
            deadline_s=20.0,
        )
        if done.exit_status:
            last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
            raise ExecProblem(f"{pod} shows no certificate: {' '.join(last)}")
        return done.stdout.decode().strip()
