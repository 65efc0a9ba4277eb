"""What a run can be told about the operator and the PostgresCluster it puts on a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SCOPES = ("cluster", "namespace")
SPREADS = ("required", "preferred")


@dataclass(frozen=True)
class InstallSettings:
    """Where the operator comes from, and what the PostgresCluster gets where its manifest is silent.

    ``source`` None means that the operator is already there. ``images`` are ``NAME=IMAGE`` separated
    by commas: ``operator`` or the rest of a ``RELATED_IMAGE_…`` variable. ``pull_secrets`` are names
    of Secrets, or files of the kind ``kubernetes.io/dockerconfigjson``; ``annotations`` go on the
    operator's service account. ``upgrade_to`` is the source of the release that the upgrade scenario
    goes to. ``cpu`` and ``memory`` are requests and limits of each instance.
    """

    source: str | None = None
    scope: str = "cluster"
    images: str | None = None
    pull_secrets: str | None = None
    annotations: str | None = None
    upgrade_to: str | None = None
    storage_class: str | None = None
    storage: str | None = None
    cpu: str | None = None
    memory: str | None = None
    replicas: int | None = None
    spread: str | None = None


NOTHING = InstallSettings()
Kind = Literal["text", "flag", "whole", "number", "path"]
#: Field, flag, kind, help, metavar: one row for each field of :class:`InstallSettings`.
INSTALL_ROWS: tuple[tuple[str, str, Kind, str, str | None], ...] = (
    (
        "source",
        "--pgo-install",
        "text",
        (
            "the operator: its repository or the examples' (directory or archive), a Helm chart "
            "(oci://… or directory), a manifest, or 'installed' (installed)"
        ),
        "SOURCE",
    ),
    (
        "scope",
        "--pgo-install-scope",
        "text",
        "what the operator watches: cluster (all namespaces) or namespace (its own) (cluster)",
        "SCOPE",
    ),
    (
        "images",
        "--pgo-images",
        "text",
        "other images for the operator: operator=IMAGE,postgres_17=IMAGE,pgbackrest=IMAGE …",
        "NAME=IMAGE,…",
    ),
    (
        "pull_secrets",
        "--pgo-image-pull-secrets",
        "text",
        "Secrets for pulling images: names of what is there, or files of Docker's config.json kind",
        "SECRETS",
    ),
    (
        "annotations",
        "--pgo-operator-annotations",
        "text",
        "annotations of the operator's service account, such as eks.amazonaws.com/role-arn=ARN",
        "KEY=VALUE,…",
    ),
    (
        "upgrade_to",
        "--pgo-upgrade-to",
        "text",
        "the operator that the upgrade scenario goes to, named as for --pgo-install",
        "SOURCE",
    ),
    (
        "storage_class",
        "--pgo-storage-class",
        "text",
        "storage class of all volumes for which the manifest names none (the cluster's default)",
        "NAME",
    ),
    ("storage", "--pgo-storage", "text", "size of each instance's volume (1Gi)", "SIZE"),
    ("cpu", "--pgo-cpu", "text", "CPU of each instance where the manifest is silent", "CPU"),
    ("memory", "--pgo-memory", "text", "memory of each instance, likewise", "SIZE"),
    ("replicas", "--pgo-replicas", "whole", "instances of the suite's own cluster (3)", "N"),
    (
        "spread",
        "--pgo-spread",
        "text",
        "the suite's own cluster over zones: required or preferred (required)",
        "HOW",
    ),
)
