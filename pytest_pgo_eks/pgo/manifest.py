"""The PostgresCluster under test: the suite's own or the user's, completed and checked.

A user's manifest is judged as it is. Settings fill in only where it is silent, and what contradicts
the run is refused in one line before anything is created.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pytest_pgo_eks import shipped
from pytest_pgo_eks.errors import UsageProblem
from pytest_pgo_eks.pgo import names
from pytest_pgo_eks.pgo.versions import (
    DEFAULT_LEASE_S,
    DEFAULT_RETRY_S,
    DEFAULT_SYNC_PERIOD_S,
    MIN_LEASE_S,
    MIN_RETRY_S,
)
from pytest_pgo_eks.settings import POSTGRES_VERSIONS, Settings

Manifest = dict[str, Any]

_API_VERSIONS = (f"{names.GROUP}/v1", f"{names.GROUP}/v1beta1")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
# PGO: cluster name and set name share 46 characters of the controller-revision-hash label.
_NAME_AND_SET = 46
# What makes the suite's questions meaningless: nothing runs, or somebody else is in charge.
_CONTRADICTIONS = (
    (("shutdown",), True, "the suite needs a cluster that runs"),
    (("paused",), True, "the operator would not act on anything"),
    (("standby", "enabled"), True, "a standby cluster accepts no writes"),
    (("patroni", "dynamicConfiguration", "pause"), True, "Patroni would not fail over"),
)


def render(
    settings: Settings,
    *,
    needs_failover: bool = True,
    available: Sequence[int] = (),
    storage_class: str | None = None,
) -> Manifest:
    """Return the manifest to apply.

    ``available`` are the major versions of PostgreSQL that the cluster has, where it knows: the
    suite's own manifest takes the newest of them if its own is missing.

    :raises UsageProblem: one line that names the file, the field and what to do.
    """
    path = settings.manifest or shipped.fixtures() / "postgres" / "cluster.yaml"
    own = is_shipped(path)
    manifest = load(path)
    check(manifest, str(path), settings, needs_failover=needs_failover)
    manifest = copy.deepcopy(manifest)
    manifest.pop("status", None)
    manifest["metadata"]["namespace"] = settings.namespace
    spec = manifest["spec"]
    if own:
        version = settings.postgres_version or spec["postgresVersion"]
        if settings.postgres_version is None and available and version not in available:
            version = max(available)
        spec["postgresVersion"] = version
        _shape(spec, settings)
    _timing(spec, settings)
    _fill(spec, settings, storage_class)
    return manifest


def _shape(spec: Manifest, settings: Settings) -> None:
    """Give the suite's own cluster the number, size and spread that the settings ask for."""
    chosen = settings.install
    for one in spec["instances"]:
        if chosen.replicas is not None:
            one["replicas"] = chosen.replicas
        if chosen.storage:
            one["dataVolumeClaimSpec"]["resources"]["requests"]["storage"] = chosen.storage
        for rule in one.get("topologySpreadConstraints") or []:
            if chosen.spread:
                required = chosen.spread == "required"
                rule["whenUnsatisfiable"] = "DoNotSchedule" if required else "ScheduleAnyway"


def _fill(spec: Manifest, settings: Settings, storage_class: str | None) -> None:
    """Put what the settings say where the manifest, ours or a user's, is silent."""
    chosen = settings.install
    if name := chosen.storage_class or storage_class:
        for claim in _claims(spec):
            claim.setdefault("storageClassName", name)
    wanted = {
        key: value for key, value in (("cpu", chosen.cpu), ("memory", chosen.memory)) if value
    }
    for one in spec["instances"]:
        if wanted and not one.get("resources"):
            # The same for both, so that a node's other pods cannot take it away (class Guaranteed).
            one["resources"] = {"requests": dict(wanted), "limits": dict(wanted)}
    if chosen.pull_secrets and "imagePullSecrets" not in spec:
        from pytest_pgo_eks.pgo.install import overrides_of

        names_of = overrides_of(settings).pull_secrets
        spec["imagePullSecrets"] = [{"name": one} for one in names_of]


def is_shipped(path: Path) -> bool:
    """Say whether a manifest is one of ours: they run on whatever PostgreSQL there is."""
    return path.resolve().is_relative_to(shipped.fixtures().resolve())


def load(path: Path) -> Manifest:
    """Read the one PostgresCluster in a YAML file; other documents beside it are refused.

    :raises UsageProblem: unreadable, no YAML (with its line), or not exactly one PostgresCluster.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise UsageProblem(f"{path}: cannot be read: {reason}") from error
    try:
        documents = [one for one in yaml.safe_load_all(text) if one is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UsageProblem(f"{path}{line}: not YAML: {problem}") from error
    if not documents:
        raise UsageProblem(f"{path}: it is empty; a PostgresCluster is needed")
    if len(documents) > 1:
        kinds = ", ".join(
            str(one.get("kind")) if isinstance(one, dict) else "?" for one in documents
        )
        raise UsageProblem(f"{path}: one PostgresCluster is needed, but it holds {kinds}")
    if not isinstance(documents[0], dict):
        raise UsageProblem(f"{path}: a mapping is needed, not {type(documents[0]).__name__}")
    manifest: Manifest = documents[0]
    if manifest.get("kind") != names.KIND:
        raise UsageProblem(f"{path}: kind is {manifest.get('kind')!r}; a PostgresCluster is needed")
    if manifest.get("apiVersion") not in _API_VERSIONS:
        raise UsageProblem(
            f"{path}: apiVersion is {manifest.get('apiVersion')!r}; "
            f"{' or '.join(_API_VERSIONS)} is needed"
        )
    return manifest


def check(
    manifest: Manifest, where: str, settings: Settings, *, needs_failover: bool = True
) -> None:
    """Refuse what the suite cannot judge.

    :raises UsageProblem: the first thing found, in one line.
    """
    _check_meta(manifest, where, settings)
    spec = manifest.get("spec")
    if not isinstance(spec, dict):
        raise UsageProblem(f"{where}: spec is missing")
    _check_instances(spec, where, manifest["metadata"]["name"])
    version = spec.get("postgresVersion")
    if not isinstance(version, int) or isinstance(version, bool):
        raise UsageProblem(
            f"{where}: spec.postgresVersion is {version!r}; a whole number is needed"
        )
    own = settings.manifest is None or is_shipped(settings.manifest)
    if not own and version not in POSTGRES_VERSIONS:
        raise UsageProblem(
            f"{where}: spec.postgresVersion is {version}, which is not supported; "
            f"{', '.join(map(str, POSTGRES_VERSIONS))} are"
        )
    if not own and settings.postgres_version not in (None, version):
        raise UsageProblem(
            f"{where}: spec.postgresVersion is {version}, but --pgo-postgres-version asks for "
            f"{settings.postgres_version}; leave the option out"
        )
    for keys, value, why in _CONTRADICTIONS:
        if _at(spec, keys) == value:
            raise UsageProblem(f"{where}: spec.{'.'.join(keys)} is {str(value).lower()}: {why}")
    _check_timing(spec, where, settings)
    if needs_failover and replicas(manifest) < 2:
        raise UsageProblem(
            f"{where}: spec.instances have {replicas(manifest)} replica in all; the selected "
            "scenarios need somebody to fail over to: at least 2, better 3"
        )


def replicas(manifest: Manifest) -> int:
    """Return how many instances a manifest declares; PGO's default is 1 for each set."""
    return sum(int(one.get("replicas", 1)) for one in manifest["spec"]["instances"])


def instance_sets(manifest: Manifest) -> dict[str, int]:
    """Return the declared instances of each set, by the name that PGO gives an unnamed one."""
    return {
        one.get("name") or f"{index:02d}": int(one.get("replicas", 1))
        for index, one in enumerate(manifest["spec"]["instances"])
    }


@dataclass(frozen=True)
class Declared:
    """What a PostgresCluster asks for and has to have before it is up."""

    sets: Mapping[str, int]
    repos: tuple[str, ...] = ()
    proxy: bool = False

    @property
    def instances(self) -> int:
        return sum(self.sets.values())


def declared(manifest: Manifest) -> Declared:
    """Return what a manifest, or the object itself, declares."""
    spec = manifest["spec"]
    proxy = _at(spec, ("proxy", "pgBouncer"))
    return Declared(
        sets=instance_sets(manifest),
        repos=tuple(one["name"] for one in _at(spec, ("backups", "pgbackrest", "repos")) or []),
        proxy=isinstance(proxy, dict) and proxy.get("replicas", 1) != 0,
    )


def lease_s(manifest: Manifest) -> int:
    """Return the leader lease that a manifest declares, or PGO's default."""
    return int(_at(manifest["spec"], ("patroni", "leaderLeaseDurationSeconds")) or DEFAULT_LEASE_S)


def sync_period_s(manifest: Manifest) -> int:
    """Return the sync period that a manifest declares, or PGO's default."""
    return int(_at(manifest["spec"], ("patroni", "syncPeriodSeconds")) or DEFAULT_SYNC_PERIOD_S)


def dynamic_configuration(manifest: Manifest) -> dict[str, Any]:
    """Return ``spec.patroni.dynamicConfiguration``."""
    return _at(manifest["spec"], ("patroni", "dynamicConfiguration")) or {}


def _check_meta(manifest: Manifest, where: str, settings: Settings) -> None:
    meta = manifest.get("metadata")
    if not isinstance(meta, dict) or not meta.get("name"):
        raise UsageProblem(f"{where}: metadata.name is missing")
    name = meta["name"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageProblem(
            f"{where}: metadata.name {name!r} is no name: lower-case letters, digits and hyphens"
        )
    namespace = meta.get("namespace")
    if settings.manifest is not None and namespace not in (None, settings.namespace):
        raise UsageProblem(
            f"{where}: metadata.namespace is {namespace!r}, but the run uses "
            f"{settings.namespace!r}; say --pgo-namespace={namespace}"
        )


def _check_instances(spec: Manifest, where: str, name: str) -> None:
    sets = spec.get("instances")
    if not isinstance(sets, list) or not sets:
        raise UsageProblem(f"{where}: spec.instances is missing")
    seen: set[str] = set()
    for index, one in enumerate(sets):
        at = f"{where}: spec.instances[{index}]"
        if not isinstance(one, dict):
            raise UsageProblem(f"{at} is no mapping")
        near = difflib.get_close_matches(
            "replicas", [key for key in one if key != "replicas"], 1, 0.8
        )
        if near and "replicas" not in one:
            raise UsageProblem(f"{at}.{near[0]} is unknown; did you mean replicas?")
        count = one.get("replicas", 1)
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise UsageProblem(f"{at}.replicas is {count!r}; a whole number from 1 is needed")
        set_name = str(one.get("name") or f"{index:02d}")
        if set_name in seen:
            raise UsageProblem(f"{at}.name is {set_name!r} once more; names are unique")
        seen.add(set_name)
        if len(name) + len(set_name) > _NAME_AND_SET:
            raise UsageProblem(
                f"{at}.name: {name!r} and {set_name!r} have more than {_NAME_AND_SET} characters "
                "together, which PGO cannot label"
            )
        claim = one.get("dataVolumeClaimSpec")
        if not isinstance(claim, dict) or not _at(claim, ("resources", "requests", "storage")):
            raise UsageProblem(f"{at}.dataVolumeClaimSpec.resources.requests.storage is missing")
        if not claim.get("accessModes"):
            raise UsageProblem(f"{at}.dataVolumeClaimSpec.accessModes is missing")


def _check_timing(spec: Manifest, where: str, settings: Settings) -> None:
    for field, given, option in (
        ("leaderLeaseDurationSeconds", settings.lease_s, "--pgo-lease"),
        ("syncPeriodSeconds", settings.sync_period_s, "--pgo-sync-period"),
    ):
        declared = _at(spec, ("patroni", field))
        if declared is None:
            continue
        if not isinstance(declared, int) or isinstance(declared, bool) or declared < 1:
            raise UsageProblem(
                f"{where}: spec.patroni.{field} is {declared!r}; whole seconds needed"
            )
        if settings.manifest is not None and given not in (None, declared):
            raise UsageProblem(
                f"{where}: spec.patroni.{field} is {declared}, but {option} asks for {given}; "
                "leave the option out"
            )
    _check_patronis_rules(spec, where, settings)


def _check_patronis_rules(spec: Manifest, where: str, settings: Settings) -> None:
    """Refuse what Patroni would replace in silence: every budget would count a lease not in force."""
    declared = spec.get("patroni") or {}
    lease = declared.get("leaderLeaseDurationSeconds", settings.lease_s or DEFAULT_LEASE_S)
    period = declared.get("syncPeriodSeconds", settings.sync_period_s or DEFAULT_SYNC_PERIOD_S)
    lease_at = (
        f"{where}: spec.patroni.leaderLeaseDurationSeconds"
        if "leaderLeaseDurationSeconds" in declared
        else "--pgo-lease"
    )
    if lease < MIN_LEASE_S:
        raise UsageProblem(
            f"{lease_at}: {lease} is too short: Patroni holds no lease below {MIN_LEASE_S} seconds "
            f"and would take {MIN_LEASE_S} without a word"
        )
    period_at = (
        f"{where}: spec.patroni.syncPeriodSeconds"
        if "syncPeriodSeconds" in declared
        else "--pgo-sync-period"
    )
    if period + 2 * MIN_RETRY_S > lease:
        raise UsageProblem(
            f"{period_at}: {period} is too long beside a lease of {lease} seconds: Patroni needs a "
            f"lease of at least the period and {2 * MIN_RETRY_S} seconds, and would shorten the "
            "period without a word"
        )


def _timing(spec: Manifest, settings: Settings) -> None:
    """Put lease and sync period where the manifest is silent, and a retry time that fits them."""
    patroni: Manifest = dict(spec.get("patroni") or {})
    if settings.lease_s is not None:
        patroni.setdefault("leaderLeaseDurationSeconds", settings.lease_s)
    if settings.sync_period_s is not None:
        patroni.setdefault("syncPeriodSeconds", settings.sync_period_s)
    lease = int(patroni.get("leaderLeaseDurationSeconds", DEFAULT_LEASE_S))
    period = int(patroni.get("syncPeriodSeconds", DEFAULT_SYNC_PERIOD_S))
    dynamic: Manifest = dict(patroni.get("dynamicConfiguration") or {})
    # Patroni's rule is loop_wait + 2 * retry_timeout <= ttl; it would correct a worse value itself,
    # silently and by changing the loop as well.
    retry = max(min(DEFAULT_RETRY_S, (lease - period) // 2), MIN_RETRY_S)
    if retry != DEFAULT_RETRY_S:
        dynamic.setdefault("retry_timeout", retry)
    if dynamic:
        patroni["dynamicConfiguration"] = dynamic
    if patroni:
        spec["patroni"] = patroni


def _claims(spec: Manifest) -> list[Manifest]:
    found = []
    for one in spec["instances"]:
        found += [one[key] for key in ("dataVolumeClaimSpec", "walVolumeClaimSpec") if key in one]
    for repo in _at(spec, ("backups", "pgbackrest", "repos")) or []:
        if claim := _at(repo, ("volume", "volumeClaimSpec")):
            found.append(claim)
    return found


def _at(value: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value
