"""The commands of ``python -m pytest_pgo_eks.report``, a module each."""
