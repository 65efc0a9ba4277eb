"""The shell in the pods: start-up of an instance, and the sidecars that reload on change.

Written for bash and coreutils; each does what PGO's script of the same container does, except that
nobody watches how full the volumes are.
"""

from __future__ import annotations

# Arguments: major version, WAL directory, mode of the data directory, directories to make.
STARTUP = r"""
version=$1 wal=$2 mode=$3; shift 3
say() { printf '::postgres-operator: %s::%s\n' "$1" "$2"; }
refuse() { echo "$*" >&2; exit 1; }
PATH="/usr/lib/postgresql/${version}/bin:${PATH}"
say uid "$(id -u)"
say gid "$(id -G)"
found=$(postgres --version) || refuse 'no postgres on PATH'
say 'postgres version' "${found}"
[[ ${found} =~ ') '${version}($|[^0-9]) ]] || refuse "Expected PostgreSQL version ${version}"
data=${PGDATA:?}
if [[ -d ${data}_bootstrap ]]; then data=${data}_bootstrap; say 'bootstrap directory' "${data}"; fi
say 'data directory' "${data}"
install --directory --mode="${mode}" "${data}" || refuse "$(stat -c '%A %u %g %n' /pgdata "${data}")"
for each in "$@"; do mkdir -p "${each}"; chmod 0775 "${each}" "${each%/*}" || true; done
install -D --mode=0600 -t /tmp/replication /pgconf/tls/replication/{tls.crt,tls.key,ca.crt}
[[ -e ${data}/PG_VERSION ]] || exit 0
[[ $(<"${data}/PG_VERSION") == "${version}" ]] || refuse "Expected data of version ${version}"
[[ -e ${data}/postgresql.conf ]] || touch "${data}/postgresql.conf"
now=$(realpath "${data}/pg_wal")
if [[ ${now} != "${wal}" ]]; then
  mv --no-target-directory "${now}" "${wal}"
  ln --no-dereference --force --symbolic "${wal}" "${data}/pg_wal"
fi
say 'wal directory' "$(realpath "${data}/pg_wal")"
""".strip()

# Arguments: directory of a projected volume. The kubelet swaps its ``..data`` link on every change,
# so one readlink every five seconds is all it costs to wait.
_ON_CHANGE = r"""
seen=$(readlink "$1/..data" || true)
exec {idle}<> <(:)
while read -r -t 5 -u "${idle}" || true; do
  now=$(readlink "$1/..data" || true)
  [[ ${now} != "${seen}" ]] || continue
  if changed "$1"; then seen=${now}; echo "reloaded ${now}"; fi
done
""".strip()

COPY_REPLICATION_CERTIFICATE = (
    r"""
changed() {
  install -D --mode=0600 -t /tmp/replication "$1"/replication/{tls.crt,tls.key,ca.crt} &&
    pkill --signal HUP --exact --parent 1 postgres
}
""".strip()
    + "\n"
    + _ON_CHANGE
)

RELOAD_PGBACKREST = (
    "changed() { pkill --signal HUP --exact --parent 0 pgbackrest; }\n"
    + _ON_CHANGE.replace(
        '"$1/..data" || true)', '"$1/..data" || true):$(readlink "$2/..data" || true)'
    )
)

RELOAD_PGBOUNCER = "changed() { pkill --signal HUP --exact pgbouncer; }\n" + _ON_CHANGE

# Arguments: SQL that lists databases, then options of psql. SQL to run in each comes on stdin.
EVERY_DATABASE = r"""
sql=$(cat); list=$1; shift
mapfile -t databases < <(psql -XAtw --dbname=postgres --set=ON_ERROR_STOP=on --command="${list}")
(( ${#databases[@]} > 0 )) || { echo 'no databases found' >&2; exit 3; }
for each in "${databases[@]}"; do
  PGDATABASE=${each} psql -Xw --file=- "$@" <<< "${sql}"
done
""".strip()

# Arguments: config hash, stanza. Status 50: pgBackRest could not get at the repository.
CREATE_STANZA = r"""
[[ $(< /etc/pgbackrest/conf.d/config-hash) == "$1" ]] || { echo 'configuration is behind' >&2; exit 75; }
pgbackrest stanza-create --stanza="$2" --log-level-console=warn ||
  pgbackrest stanza-upgrade --stanza="$2" --log-level-console=warn
""".strip()


def command(script: str, name: str, *arguments: str) -> list[str]:
    """Return the argv that runs a script in bash under a name that shows in the process list."""
    return ["bash", "-ceu", "--", script, name, *arguments]
