"""What a scenario works with: clients, routes, roles, budgets, changes to the cluster under test.

Between the sentences (:mod:`pytest_pgo_eks.steps`), which only name what is meant, and the layers
below, which know nothing of scenarios. Checks here raise
:class:`~pytest_pgo_eks.errors.Violation` with what was seen, or wait and let the wait raise.
"""
