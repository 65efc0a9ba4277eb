"""Command line, ini and environment become one frozen :class:`Settings`.

Nothing here knows pytest: :mod:`pytest_pgo_eks.plugin` hands over what it was told, as text.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.settings_eks import (
    DEFAULT,
    EKS_ROWS,
    ENDPOINTS,
    IDENTITIES,
    PROFILES,
    EksSettings,
)
from pytest_pgo_eks.settings_install import INSTALL_ROWS, NOTHING, SCOPES, SPREADS, InstallSettings
from pytest_pgo_eks.settings_values import converted, is_dns_label

PROVIDERS = ("local", "kind", "k3s", "kubeconfig", "eks")
POSTGRES_VERSIONS = (15, 16, 17, 18)
LEVELS = range(5)

# The stand-in's own: a lease of 20 s is the least that Patroni's rule
# loop_wait + 2 * retry_timeout <= ttl leaves beside a sync period of 2 s and its retry time of 9 s.
LOCAL_LEASE_S = 20
LOCAL_SYNC_PERIOD_S = 2

OWN_NAMESPACE = "pytest-pgo-eks"


@dataclass(frozen=True)
class Settings:
    """Everything a run was told, resolved once and never changed.

    Precedence: command line, then environment (``PGO_…``), then ini, then the default here.
    ``lease_s`` and ``sync_period_s`` are whole seconds as in ``spec.patroni``; None leaves PGO's
    own defaults (30 and 10). ``reuse`` is the name of a cluster that an earlier run kept.
    """

    provider: str
    keep: bool = False
    reuse: str | None = None
    namespace: str = "postgres-operator"
    manifest: Path | None = None
    level: int = 3
    timeout_scale: float = 1.0
    report_dir: Path = Path("reports")
    postgres_version: int | None = None
    lease_s: int | None = None
    sync_period_s: int | None = None
    kubeconfig: Path | None = None
    context: str | None = None
    state_dir: Path | None = None
    seed: int | None = None
    gate: str | None = None
    adopt: str | None = None
    allow_disruption: bool = False
    allow_production: bool = False
    allow_privileged: bool = False
    failovers: int = 10
    probe_image: str | None = None
    kubernetes_version: str | None = None
    kind_binary: str | None = None
    kind_image: str | None = None
    k3s_image: str | None = None
    load_images: str | None = None
    registry_mirror: str | None = None
    eks: EksSettings = DEFAULT
    install: InstallSettings = NOTHING


Kind = Literal["text", "flag", "whole", "number", "path"]


@dataclass(frozen=True)
class Option:
    """One setting as the user meets it; the names in ini and environment follow from the flag."""

    field: str
    flag: str
    kind: Kind
    help: str
    metavar: str | None = None

    @property
    def ini(self) -> str:
        """``pgo_keep`` for ``--pgo-keep``, and ``pgo_cluster`` for ``--cluster``."""
        return "pgo_" + self.flag.removeprefix("--").removeprefix("pgo-").replace("-", "_")

    @property
    def environment(self) -> str:
        """``PGO_KEEP`` for ``--pgo-keep``."""
        return self.ini.upper()


OPTIONS: tuple[Option, ...] = (
    Option(
        "provider",
        "--cluster",
        "text",
        "where Kubernetes comes from: local (no Docker, no AWS), kind, k3s, kubeconfig, eks",
        "PROVIDER",
    ),
    Option("keep", "--pgo-keep", "flag", "leave the cluster running and print how to use it"),
    Option("reuse", "--pgo-reuse", "text", "run on the cluster that an earlier run kept", "NAME"),
    Option(
        "namespace",
        "--pgo-namespace",
        "text",
        "namespace of the operator and of the PostgresCluster under test (postgres-operator)",
        "NAME",
    ),
    Option(
        "manifest",
        "--pgo-manifest",
        "path",
        "judge this PostgresCluster instead of the suite's own",
        "FILE",
    ),
    Option(
        "level",
        "--pgo-level",
        "whole",
        "run scenarios up to this importance level: 0 smoke … 4 everything (3)",
        "N",
    ),
    Option(
        "timeout_scale",
        "--pgo-timeout-scale",
        "number",
        "multiply every budget by this, for slow machines (1)",
        "FACTOR",
    ),
    Option(
        "report_dir",
        "--pgo-report-dir",
        "path",
        "where each run writes a folder with its verdict and evidence (reports)",
        "DIR",
    ),
    Option(
        "postgres_version",
        "--pgo-postgres-version",
        "whole",
        "major version of PostgreSQL under test: 15 … 18 (what the provider has)",
        "MAJOR",
    ),
    Option(
        "lease_s",
        "--pgo-lease",
        "whole",
        "Patroni's leader lease in seconds (local: 20, else PGO's own 30)",
        "SECONDS",
    ),
    Option(
        "sync_period_s",
        "--pgo-sync-period",
        "whole",
        "Patroni's sync period in seconds (local: 2, else PGO's own 10)",
        "SECONDS",
    ),
    Option(
        "kubeconfig",
        "--pgo-kubeconfig",
        "path",
        "kubeconfig of a cluster you already have, for --cluster=kubeconfig",
        "FILE",
    ),
    Option("context", "--pgo-context", "text", "context of that kubeconfig", "NAME"),
    Option(
        "adopt",
        "--pgo-adopt",
        "text",
        "judge this existing PostgresCluster and change nothing in its namespace",
        "NAMESPACE/NAME",
    ),
    Option(
        "allow_disruption",
        "--pgo-allow-disruption",
        "flag",
        "with --pgo-adopt: run the disruptive scenarios on it, too",
    ),
    Option(
        "allow_production",
        "--pgo-allow-production",
        "flag",
        "run on a cluster whose name or labels look like production",
    ),
    Option(
        "failovers",
        "--pgo-failovers",
        "whole",
        "how many failovers in a row the scenario that repeats them makes (10)",
        "N",
    ),
    Option(
        "allow_privileged",
        "--pgo-allow-privileged",
        "flag",
        "allow a privileged helper pod for faults that nothing else can inject (partitions, clock)",
    ),
    Option(
        "probe_image",
        "--pgo-probe-image",
        "text",
        "image with Python 3.11 or newer for the load agent (python:3.13-slim; local: its own)",
        "IMAGE",
    ),
    Option(
        "kubernetes_version",
        "--pgo-kubernetes-version",
        "text",
        "Kubernetes that kind or k3s runs, such as 1.34",
        "VERSION",
    ),
    Option("kind_binary", "--pgo-kind-binary", "text", "the kind program (kind)", "FILE"),
    Option("kind_image", "--pgo-kind-image", "text", "node image for kind", "IMAGE"),
    Option("k3s_image", "--pgo-k3s-image", "text", "image for k3s", "IMAGE"),
    Option(
        "load_images",
        "--pgo-load-images",
        "text",
        "images of this machine to copy into kind's nodes, separated by commas",
        "IMAGES",
    ),
    Option(
        "registry_mirror",
        "--pgo-registry-mirror",
        "text",
        "where nodes of kind or k3s pull from: HOST=URL, separated by commas (docker.io=http://…)",
        "MIRRORS",
    ),
    Option(
        "seed",
        "--pgo-seed",
        "whole",
        "what every random choice is derived from, to have a run's choices again (a new one)",
        "N",
    ),
    Option(
        "gate",
        "--pgo-gate",
        "text",
        "end with status 7 unless the run meets this policy: a file, or smoke, nightly, release",
        "POLICY",
    ),
    Option(
        "state_dir",
        "--pgo-state-dir",
        "path",
        "where clusters made here keep their state (~/.local/state/pytest-pgo-eks)",
        "DIR",
    ),
)

_EKS = "eks."
_INSTALL = "install."
OPTIONS += tuple(Option(_INSTALL + row[0], *row[1:]) for row in INSTALL_ROWS)
OPTIONS += tuple(Option(_EKS + row[0], *row[1:]) for row in EKS_ROWS)

Given = Mapping[str, object]
_CHOICES = {
    "install.scope": SCOPES,
    "install.spread": SPREADS,
    "eks.profile": PROFILES,
    "eks.identity": IDENTITIES,
    "eks.endpoint": ENDPOINTS,
}
_POSITIVE = (
    "failovers",
    "timeout_scale",
    "lease_s",
    "sync_period_s",
    "install.replicas",
    "eks.nodes_per_zone",
    "eks.hours",
    "eks.max_cost_usd",
)


def resolve(
    command_line: Given,
    environment: Mapping[str, str],
    ini: Given,
    providers: Iterable[str] = PROVIDERS,
) -> Settings | None:
    """Return what the run was told, or None where no cluster was asked for.

    ``command_line`` and ``ini`` are keyed by :attr:`Option.ini`; a value of None was not given.
    Without a cluster nothing else is looked at: a project that merely has the package installed
    must not fail over an environment variable.

    :raises UsageProblem: a value cannot work; the message names where it was given.
    """
    chosen: dict[str, object] = {}
    origin: dict[str, str] = {}
    for option in OPTIONS:
        for where, value in (
            (option.flag, command_line.get(option.ini)),
            (f"environment variable {option.environment}", environment.get(option.environment)),
            (f"ini option {option.ini}", ini.get(option.ini)),
        ):
            if value is not None:
                chosen[option.field] = value
                origin[option.field] = where
                break
    if not str(chosen.get("provider", "")).strip():
        return None
    kinds = {option.field: option.kind for option in OPTIONS}
    values = {name: converted(kinds[name], v, origin[name]) for name, v in chosen.items()}
    known = tuple(dict.fromkeys(providers))
    _check(values, origin, known)
    if values["provider"] == "kubeconfig":
        # In a cluster that others use nobody else's namespace is taken without being named.
        values.setdefault("namespace", values.get("reuse", OWN_NAMESPACE))
    if values["provider"] == "local" and "manifest" not in values:
        values.setdefault("lease_s", LOCAL_LEASE_S)
        values.setdefault("sync_period_s", LOCAL_SYNC_PERIOD_S)
    values["eks"] = EksSettings(**_taken(values, _EKS))
    values["install"] = InstallSettings(**_taken(values, _INSTALL))
    return Settings(**values)  # type: ignore[arg-type]


def _taken(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Take the values of one group out, by their names without its prefix."""
    names = [name for name in values if name.startswith(prefix)]
    return {name.removeprefix(prefix): values.pop(name) for name in names}


def _check(
    values: Mapping[str, object], origin: Mapping[str, str], providers: tuple[str, ...]
) -> None:
    provider = str(values["provider"])
    if provider not in providers:
        raise UsageProblem(
            f"{origin['provider']}: there is no provider {provider!r}"
            f"{nearest(provider, providers)}; known are {', '.join(providers)}"
        )
    level = values.get("level", 3)
    if level not in LEVELS:
        raise UsageProblem(f"{origin['level']}: {level} is not a level from 0 to 4")
    for name, allowed in _CHOICES.items():
        told = values.get(name, allowed[0])
        if told not in allowed:
            raise UsageProblem(f"{origin[name]}: {told!r} is none of {', '.join(allowed)}")
    for name in _POSITIVE:
        value = values.get(name, 1)
        if isinstance(value, int | float) and value <= 0:
            raise UsageProblem(f"{origin[name]}: {value} must be greater than 0")
    version = values.get("postgres_version", POSTGRES_VERSIONS[0])
    if version not in POSTGRES_VERSIONS:
        known = ", ".join(map(str, POSTGRES_VERSIONS))
        raise UsageProblem(
            f"{origin['postgres_version']}: PostgreSQL {version} is not supported; {known} are"
        )
    _check_real(values, origin)
    namespace = str(values.get("namespace", "postgres-operator"))
    if not is_dns_label(namespace):
        raise UsageProblem(
            f"{origin['namespace']}: {namespace!r} is no namespace name: up to 63 lower-case "
            "letters, digits and hyphens, with a letter or digit at both ends"
        )


# Options that only some providers know, so that none is given in vain.
_ONLY_FOR = {
    "kubeconfig": ("kubeconfig", "eks"),
    "context": ("kubeconfig", "eks"),
    "adopt": ("kubeconfig",),
    "allow_disruption": ("kubeconfig",),
    "allow_privileged": ("kind", "k3s", "kubeconfig", "eks"),
    "kubernetes_version": ("kind", "k3s", "eks"),
    "kind_binary": ("kind",),
    "kind_image": ("kind",),
    "k3s_image": ("k3s",),
    "load_images": ("kind",),
    "registry_mirror": ("kind", "k3s"),
    **{_EKS + row[0]: ("eks",) for row in EKS_ROWS},
}


def _check_real(values: Mapping[str, object], origin: Mapping[str, str]) -> None:
    """Refuse options of one provider given to another one that comes with the package."""
    provider = str(values["provider"])
    for name, known in _ONLY_FOR.items():
        if values.get(name) and provider in PROVIDERS and provider not in known:
            raise UsageProblem(
                f"{origin[name]}: --cluster={provider} has no use for it; "
                f"it is for --cluster={' and '.join(known)}"
            )
    adopt = str(values.get("adopt", "a/b"))
    if not all(map(is_dns_label, adopt.split("/"))) or adopt.count("/") != 1:
        raise UsageProblem(f"{origin['adopt']}: {adopt!r} is not of the form NAMESPACE/NAME")
    if values.get("allow_disruption") and "adopt" not in values:
        raise UsageProblem(
            f"{origin['allow_disruption']}: it is for --pgo-adopt; a PostgresCluster of the run's "
            "own is disrupted anyway"
        )
    if "adopt" in values and "manifest" in values:
        raise UsageProblem(
            f"{origin['manifest']}: --pgo-adopt judges the PostgresCluster that is there; "
            "leave the manifest out"
        )


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``", did you mean 'x'?"`` for the closest known word, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
