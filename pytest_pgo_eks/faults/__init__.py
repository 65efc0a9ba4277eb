"""Faults: inject, prove, undo.

A fault counts only with *effect evidence*: the pod's UID is gone, the postmaster has another start
time, the process is in state T, the timeline was raised. Without it the scenario is inconclusive,
because everything after it would be a statement about a cluster that nothing happened to.
"""
