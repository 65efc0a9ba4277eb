"""What AWS and Kubernetes say of an EKS cluster, judged: the pattern's rows and a security audit.

Reading and judging are apart. :mod:`read_aws` and :mod:`read_kubernetes` ask once and change
nothing; the checks are pure functions from :class:`~pytest_pgo_eks.audit.facts.Facts` to a
:class:`~pytest_pgo_eks.audit.result.Result`, so each of them is tested without an account.
"""
