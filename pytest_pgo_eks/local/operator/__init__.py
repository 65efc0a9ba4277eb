"""The stand-in for PGO: it makes visible what PGO makes visible, and Patroni does the rest.

A program of its own (``python -m pytest_pgo_eks.local.operator``) that runs in the pod of a
Deployment with in-cluster credentials. It plays PGO 5.8 or 6.0 (`releases`), and differs from both
on purpose in these points:

- initdb and ``pg_basebackup`` do not sync file by file, the latter asks for a fast checkpoint, and
  SQL and first backup wait for the first replicas (and ``observedGeneration`` for the SQL): real
  creation waits two minutes for spread checkpoints, which a stand-in must not.
- ``patronictl edit-config`` runs when the stored configuration differs from the wanted one, not in
  every reconcile: the effect is the same, at no idle cost.
- ``hippo-pgbackrest-config`` is written before the instances, so that no pod waits for its volume.
- Operator and backup Jobs may ``get`` pods/exec: they run commands over WebSockets, not SPDY.
- No nss_wrapper: the image's own ``/etc/passwd`` knows uid 26.
- The sidecars do not watch how full a volume is: here it is the disk of the host.
- Only repositories on volumes; no restore, no exporter, no pgAdmin, no major upgrade.
"""

from __future__ import annotations
