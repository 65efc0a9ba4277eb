"""Conformance tests for PostgreSQL operators on Kubernetes.

This package is loaded into every pytest run of its users' environments, so it imports nothing.
"""

__version__ = "0.1.0"
