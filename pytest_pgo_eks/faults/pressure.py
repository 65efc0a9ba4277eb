"""Resources taken away from an instance: processors kept busy, memory held, beside its PostgreSQL.

Both are ordinary processes of the ``database`` container, started through exec, so they compete
with PostgreSQL for what the pod was given, whoever limits that. They carry a name of their own by
which they are found again, and end by themselves after a quarter of an hour should nobody come.
"""

from __future__ import annotations

import re

from pytest_pgo_eks.errors import ExecProblem, FaultNotProven, NotFound
from pytest_pgo_eks.faults.bench import Proof
from pytest_pgo_eks.faults.processes import Processes
from pytest_pgo_eks.findings import Number
from pytest_pgo_eks.kube.wait import eventually

_PROVE_S = 30.0
_POLL_S = 0.5
_MARK = "pytest-pgo-eks-burner"
_AT_MOST_S = 900
_MIB = 1024 * 1024
# What the burners together have to have used before they count as pressure, in seconds of CPU.
_BURNT_S = 2.0

# Two burners for each processor: they have twice as many to share with as PostgreSQL has.
_BURN = f"""
count=$(( 2 * $(getconf _NPROCESSORS_ONLN) ))
for _ in $(seq "$count"); do
    bash -c 'exec -a {_MARK} bash -c "
        while [ \\$SECONDS -lt {_AT_MOST_S} ]; do :; done
    "' >/dev/null 2>&1 </dev/null &
done
"""

# bash reads as many characters into a variable and keeps them; unlike a file they are no cache
# that the kernel could drop.
_HOLD = f"""
bash -c 'exec -a {_MARK} bash -c "
    held=\\$(head -c MIBm /dev/zero | tr \\"\\\\0\\" x)
    while [ \\$SECONDS -lt {_AT_MOST_S} ]; do read -r -t 5 <> <(:); done
"' >/dev/null 2>&1 </dev/null &
"""

# One line for each: pid, ticks of CPU it has used, KiB it holds.
_LOOK = f"""
for entry in /proc/[0-9]*; do
    line=$(tr '\\0' ' ' 2>/dev/null <"$entry/cmdline") || continue
    case $line in {_MARK}*) ;; *) continue ;; esac
    stat=$(cat "$entry/stat" 2>/dev/null) || continue
    rest=${{stat##*) }}
    set -- $rest
    held=$(sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\).*/\\1/p' "$entry/status" 2>/dev/null)
    echo "burner ${{entry#/proc/}} $(( ${{12}} + ${{13}} )) ${{held:-0}}"
done
echo "ticks $(getconf CLK_TCK)"
sed -n 's/^some .*total=\\([0-9]*\\)/stalled \\1/p' /proc/pressure/cpu 2>/dev/null || true
"""
_KILL = f"""
for entry in /proc/[0-9]*; do
    line=$(tr '\\0' ' ' 2>/dev/null <"$entry/cmdline") || continue
    case $line in {_MARK}*) kill -KILL "${{entry#/proc/}}" ;; esac
done
true
"""
_BURNER = re.compile(r"^burner (\d+) (\d+) (\d+)$", re.MULTILINE)
_TICKS = re.compile(r"^ticks (\d+)$", re.MULTILINE)
_STALLED = re.compile(r"^stalled (\d+)$", re.MULTILINE)


class _Burners:
    """What processors and memory are taken with; undo ends every one of them."""

    kind = ""

    def __init__(self, processes: Processes, script: str) -> None:
        self.target = processes.pod
        self._processes = processes
        self._script = script

    def inject(self) -> None:
        self._processes.run(self._script)

    def undo(self) -> None:
        """End them; where the container was replaced they ended with it."""
        try:
            self._processes.run(_KILL)
        except (ExecProblem, NotFound):
            return

    def _look(self) -> tuple[list[tuple[int, float, int]], float | None]:
        """Return (pid, seconds of CPU, bytes) of each, and for how long tasks waited for a CPU."""
        text = self._processes.run(_LOOK)
        found = _TICKS.search(text)
        if found is None:
            raise FaultNotProven(f"{self.target} does not tell what its processes use")
        ticks = int(found[1])
        stalled = _STALLED.search(text)
        burners = [
            (int(pid), int(used) / ticks, int(held) * 1024)
            for pid, used, held in _BURNER.findall(text)
        ]
        return burners, int(stalled[1]) / 1e6 if stalled else None


class ProcessorsBusy(_Burners):
    """Two endless loops for each processor; proven by the CPU time that they have used.

    Where the kernel counts for how long tasks waited for a processor (``/proc/pressure``), that
    is told too.
    """

    kind = "processors-busy"

    def __init__(self, processes: Processes) -> None:
        super().__init__(processes, _BURN)
        self._stalled_s: float | None = None

    def inject(self) -> None:
        _, self._stalled_s = self._look()
        super().inject()

    def prove(self) -> Proof:
        burners, stalled_s = eventually(
            self._look,
            accept=lambda seen: sum(used for _, used, _ in seen[0]) >= _BURNT_S,
            within_s=_PROVE_S,
            what=f"processes beside PostgreSQL in {self.target} to use {_BURNT_S:g} s of CPU",
            successes=1,
            poll_s=_POLL_S,
            show=lambda seen: f"{len(seen[0])} burners",
        )
        used_s = sum(used for _, used, _ in burners)
        numbers: dict[str, Number] = {"burners": len(burners), "cpu_s": round(used_s, 2)}
        told = f"{len(burners)} busy processes in {self.target} used {used_s:.1f} s of CPU"
        if stalled_s is not None and self._stalled_s is not None:
            numbers["stalled_s"] = round(stalled_s - self._stalled_s, 3)
            told += f", and tasks waited {stalled_s - self._stalled_s:.1f} s for a processor"
        return Proof(told, numbers)


class MemoryHeld(_Burners):
    """Memory that a process beside PostgreSQL holds; proven by its resident size."""

    kind = "memory-held"

    def __init__(self, processes: Processes, mib: int) -> None:
        super().__init__(processes, _HOLD.replace("MIB", str(mib)))
        self._mib = mib

    def prove(self) -> Proof:
        burners, _ = eventually(
            self._look,
            accept=lambda seen: max((held for *_, held in seen[0]), default=0) >= self._mib * _MIB,
            within_s=_PROVE_S,
            what=f"a process in {self.target} to hold {self._mib} MiB",
            successes=1,
            poll_s=_POLL_S,
            show=lambda seen: f"{max((h for *_, h in seen[0]), default=0) // _MIB} MiB are held",
        )
        held = max(size for *_, size in burners)
        return Proof(
            f"a process in {self.target} holds {held / _MIB:.0f} MiB of memory",
            {"bytes": held, "wanted_bytes": self._mib * _MIB},
        )
