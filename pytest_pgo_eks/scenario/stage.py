"""The stage of one scenario: the cluster under test, the faults, the clients, and the way back."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

from pytest_pgo_eks.errors import Inconclusive, NotPermitted
from pytest_pgo_eks.faults.bench import Bench, Injected
from pytest_pgo_eks.findings import Finding, demand
from pytest_pgo_eks.history import timeline
from pytest_pgo_eks.history.judge import measure
from pytest_pgo_eks.history.matrix import Mode
from pytest_pgo_eks.kube import Kube
from pytest_pgo_eks.pgo import Observation, PostgresCluster
from pytest_pgo_eks.probe.control import Installed
from pytest_pgo_eks.report.evidence import ScenarioEvidence
from pytest_pgo_eks.scenario import budget
from pytest_pgo_eks.scenario.clients import Clients
from pytest_pgo_eks.scenario.targets import Targets
from pytest_pgo_eks.settings import Settings
from pytest_pgo_eks.timeouts import Timeouts


class Stage:
    """What the steps of one scenario share. ``close`` takes everything back, in reverse order."""

    def __init__(
        self,
        postgres: PostgresCluster,
        settings: Settings,
        evidence: ScenarioEvidence,
        install_probe: Callable[[], Installed],
    ) -> None:
        self.postgres = postgres
        self.settings = settings
        self.evidence = evidence
        self.timeouts = Timeouts.of(settings)
        self.manifest = postgres.object()
        self.targets = Targets(postgres.kube, self.manifest)
        self.bench = Bench(self._record, self._mark)
        self.before: Observation | None = None
        self._clients: Clients | None = None
        self._install_probe = install_probe
        self._undo = ExitStack()

    @property
    def kube(self) -> Kube:
        return self.postgres.kube

    @property
    def namespace(self) -> str:
        return self.postgres.namespace

    @property
    def probe(self) -> Installed:
        """The agent in its pod, installed when first asked for."""
        return self._install_probe()

    @property
    def clients(self) -> Clients:
        """The clients that are writing.

        :raises Inconclusive: none are; the scenario lacks its Given.
        """
        if self._clients is None:
            raise Inconclusive("no clients are writing; say so in a Given")
        return self._clients

    def seconds(self, text: str) -> float:
        """Return the seconds of a sentence, times the run's multiplier."""
        plain = budget.seconds(
            text,
            lease_s=float(self.postgres.lease_s),
            sync_period_s=float(self.postgres.sync_period_s),
        )
        return plain * self.settings.timeout_scale

    def start_clients(self, mode: Mode, isolation: str | None = None) -> None:
        """Let clients write through every path until the scenario ends.

        ``isolation`` adds list-append transactions of that level on the primary.
        """
        file = self.evidence.path("history.jsonl.gz")
        seed = self.evidence.seed
        hosts = [one.pod for one in self.postgres.observe().instances]
        clients = Clients(self.probe, self.targets, mode, file, isolation, hosts=hosts, seed=seed)
        self.evidence.replication = mode
        self._undo.callback(self._end_clients, clients)
        self._clients = clients
        clients.start()
        self.remember()

    def remember(self) -> Observation:
        """Keep what is true now as what was true before; return it."""
        self.before = self.postgres.observe(sql=True)
        return self.before

    @property
    def beginning(self) -> Observation:
        """What was true before the first change.

        :raises Inconclusive: nobody looked.
        """
        if self.before is None:
            raise Inconclusive("nobody looked at the cluster before it was disturbed")
        return self.before

    def later(self, undo: Callable[..., object], *arguments: object) -> None:
        """Call ``undo`` when the scenario ends, whatever happens.

        Only where the whole cluster is about to go is it left out: declaring something back and
        waiting for its arrival took a minute after Ctrl-C.
        """
        self._undo.callback(self._unless_abandoned, undo, arguments)

    def keep(self, *findings: Finding) -> None:
        """Keep findings as evidence, then demand that they hold."""
        self.evidence.add(*findings)
        demand(findings)

    def note(self, finding: Finding) -> None:
        """Keep a finding that nobody demands: measured and told."""
        self.evidence.add(finding)

    def close(self) -> None:
        """Undo the faults, end the clients, take back every change; all of it, even if one fails."""
        self._undo.callback(self.bench.undo_all)
        self._undo.close()

    def _unless_abandoned(self, undo: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        if self.evidence.abandoned:
            return
        # A change that was not permitted was not made either.
        with suppress(NotPermitted):
            undo(*arguments)

    def _end_clients(self, clients: Clients) -> None:
        clients.stop()
        if clients.file.exists():
            self.evidence.attached(clients.file)
        history = clients.history
        if history is not None and len(history.ops):
            self.evidence.attach("timeline.svg", timeline.svg(history, self.evidence.identity.name))
            facts = timeline.facts(history)
            self.evidence.attach("timeline.json", json.dumps(facts, indent=1))
            self.evidence.measured(facts["outages"])
            self.evidence.add(*measure(history))

    def _record(self, done: Injected) -> None:
        numbers: dict[str, Any] = {
            **done.proof.numbers,
            "inject_s": round(done.injected - done.began, 3),
            "prove_s": round(done.proven - done.injected, 3),
        }
        self.evidence.fault(done.kind, done.target, done.proof.sentence, numbers)

    def _mark(self, name: str) -> None:
        if self._clients is not None:
            self._clients.mark(name)
