"""Names, labels and annotations PGO gives to what it makes, and its random and hashed suffixes."""

from __future__ import annotations

import random
from collections.abc import Collection

from pytest_pgo_eks.local.objects import Obj

PREFIX = "postgres-operator.crunchydata.com/"
API_GROUP = "postgres-operator.crunchydata.com"
# The owner reference says v1beta1 even where the user applied v1.
OWNER_VERSION = f"{API_GROUP}/v1beta1"
FIELD_MANAGER = "postgrescluster-controller"
FINALIZER = f"{PREFIX}finalizer"

# Labels.
CLUSTER = f"{PREFIX}cluster"
INSTANCE = f"{PREFIX}instance"
INSTANCE_SET = f"{PREFIX}instance-set"
PATRONI = f"{PREFIX}patroni"
DATA = f"{PREFIX}data"
ROLE = f"{PREFIX}role"
PGUSER = f"{PREFIX}pguser"
CERTIFICATE = f"{PREFIX}cluster-certificate"
BACKREST = f"{PREFIX}pgbackrest"
BACKREST_CONFIG = f"{PREFIX}pgbackrest-config"
BACKREST_DEDICATED = f"{PREFIX}pgbackrest-dedicated"
BACKREST_REPO = f"{PREFIX}pgbackrest-repo"
BACKREST_VOLUME = f"{PREFIX}pgbackrest-volume"
BACKREST_BACKUP = f"{PREFIX}pgbackrest-backup"
BACKREST_CRONJOB = f"{PREFIX}pgbackrest-cronjob"
CONTROL_PLANE = f"{PREFIX}control-plane"

# Annotations (``BACKREST_BACKUP`` and ``BACKREST_CONFIG`` are annotation keys too).
TRIGGER_SWITCHOVER = f"{PREFIX}trigger-switchover"
BACKREST_HASH = f"{PREFIX}pgbackrest-hash"
AUTHORIZE_BACKUP_REMOVAL = f"{PREFIX}authorizeBackupRemoval"
USER_SCHEMA = f"{PREFIX}autoCreateUserSchema"
BACKREST_IP_VERSION = f"{PREFIX}pgbackrest-ip-version"
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"

# Values of the role label: Patroni writes the first two on pods.
LEADER = "master"
REPLICA = "replica"

# Roles inside PostgreSQL that belong to the operator.
REPLICATION_USER = "_crunchyrepl"
PGBOUNCER_USER = "_crunchypgbouncer"

DATABASE = "database"
ROOT_SECRET = "pgo-root-cacert"  # noqa: S105 - the name of an object

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def short_hash(text: str) -> str:
    """Return the 32-bit FNV-1 hash of ``text`` in the operator's alphabet (8 to 10 characters).

    ``short_hash("")`` is the ``config-hash`` of a cluster without a cloud repository.
    """
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value * 0x01000193) & 0xFFFFFFFF
        value ^= byte
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in str(value).encode())


def random_suffix(taken: Collection[str] = (), prefix: str = "") -> str:
    """Return four random characters such that ``prefix`` + suffix is not among ``taken``."""
    source = random.SystemRandom()
    while True:
        suffix = "".join(source.choice(_ALPHABET) for _ in range(4))
        if prefix + suffix not in taken:
            return suffix


def startup_instance(cluster: str, instance_set: str) -> str:
    """Return the deterministic instance name used where data exists before the cluster does."""
    return f"{cluster}-{instance_set}-{short_hash(cluster + instance_set)[:4]}"


def controller_reference(owner: Obj) -> Obj:
    """Return the owner reference of everything made for one PostgresCluster."""
    return plain_reference(owner) | {"controller": True, "blockOwnerDeletion": True}


def plain_reference(owner: Obj) -> Obj:
    """Return the reference without controller, as on the namespace's shared root certificate."""
    return {
        "apiVersion": OWNER_VERSION,
        "kind": "PostgresCluster",
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
