"""The stand-in cluster: real PostgreSQL, Patroni, PgBouncer and pgBackRest on a stand-in Kubernetes.

A program of its own (``python -m pytest_pgo_eks.local``). It imports nothing of the harness, and of
the harness only ``clusters/local.py`` starts it.
"""
