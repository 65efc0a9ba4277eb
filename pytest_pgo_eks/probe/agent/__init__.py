"""The program that runs inside the cluster, beside the database.

It is copied into a pod as one zip file and needs nothing there but Python 3.11: no wheel, no
libpq, no compiler. That is why it speaks PostgreSQL's wire protocol itself (:mod:`.wire`): a
driver of the usual kind sends a CancelRequest when a deadline passes, which *creates* the loss a
failover test is looking for, and hides when the bytes of a statement left. Nothing in this
package can send one.

Modules here import the standard library and each other, never the rest of the harness.
"""
