"""Tests of the asyncio client of the Kubernetes API."""
