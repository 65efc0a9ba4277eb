"""The clock of one instance's node set to another time, by a privileged helper.

A container has no clock of its own: a shift hits everything on the node. So it is only for nodes
that are machines, and never for those that are containers on somebody's desk.
"""

from __future__ import annotations

from pytest_pgo_eks.errors import Inconclusive
from pytest_pgo_eks.faults.bench import Proof
from pytest_pgo_eks.faults.node_pod import Helper
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.postgres import ServerView

# What providers of machines call theirs; kind, k3s and their like have schemes of their own.
MACHINES = frozenset({"aws", "azure", "gce", "openstack", "vsphere", "digitalocean", "hcloud"})
# Two questions to the server, one exec each, lie between both looks at the clock.
_TOLERANCE_S = 5.0

# The monotonic clock goes on as before, so what it says tells by how much the other was moved. A
# child puts it right after a quarter of an hour should nobody else.
_PROGRAM = """
import json, os, signal, sys, time
told = json.loads(sys.argv[1])

def offset():
    return time.clock_gettime(time.CLOCK_REALTIME) - time.clock_gettime(time.CLOCK_BOOTTIME)

def put(wanted):
    time.clock_settime(time.CLOCK_REALTIME, time.clock_gettime(time.CLOCK_BOOTTIME) + wanted)

if told["do"] == "shift":
    before = offset()
    guard = os.fork()
    if guard == 0:
        os.setsid()
        for number in range(3):
            os.close(number)
        signal.sigtimedwait([signal.SIGTERM], 900)
        put(before)
        os._exit(0)
    put(before + told["by_s"])
    print(json.dumps({"offset": before, "guard": guard}))
else:
    put(told["offset"])
    try:
        os.kill(told["guard"], signal.SIGKILL)
    except ProcessLookupError:
        pass
    print(json.dumps({"offset": offset()}))
"""

_NOW = "SELECT extract(epoch FROM clock_timestamp())::float8 AS now"


class ClockShifted:
    """The real-time clock of an instance's node moved by ``by_s`` seconds.

    Proven by what the instance's server says, against another server that was asked beside it: the
    difference between the two must have changed by as much.
    """

    kind = "clock-shifted"

    def __init__(
        self, kube: Kube, helper: Helper, server: ServerView, other: ServerView, *, by_s: float
    ) -> None:
        self.target = f"{server.pod} on {helper.node}"
        self._kube = kube
        self._node = helper.node
        self._helper = helper
        self._server = server
        self._other = other
        self._by_s = by_s
        self._apart_s = 0.0
        self._told: dict[str, float] = {}

    def inject(self) -> None:
        scheme = is_machine(self._kube.get("Node", self._node))
        if not scheme:
            raise Inconclusive(
                f"node {self._node} is no machine of a known provider: its clock may be somebody's own"
            )
        self._apart_s = self._apart()
        self._told = self._helper.run(_PROGRAM, do="shift", by_s=self._by_s)

    def prove(self) -> Proof:
        moved = self._apart() - self._apart_s
        if abs(moved - self._by_s) > _TOLERANCE_S:
            raise TimeoutError(f"its clock moved by {moved:.1f} s, not by {self._by_s:g} s")
        return Proof(
            f"the clock of {self.target} moved by {moved:.1f} s against {self._other.pod}",
            {"moved_s": round(moved, 3), "wanted_s": self._by_s},
        )

    def undo(self) -> None:
        try:
            if self._told:
                self._helper.run(_PROGRAM, do="undo", **self._told)
                self._told = {}
        finally:
            self._helper.remove()

    def _apart(self) -> float:
        """Return by how much the server's clock is ahead of the other's, in seconds."""
        return float(self._server.value(_NOW)) - float(self._other.value(_NOW))


def is_machine(node: dict[str, object]) -> bool:
    """Say whether a node is a machine of a known provider, by its ``providerID``."""
    spec = node.get("spec")
    told = str(spec.get("providerID", "")) if isinstance(spec, dict) else ""
    return told.partition(":")[0] in MACHINES
