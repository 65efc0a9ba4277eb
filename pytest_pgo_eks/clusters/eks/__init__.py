"""Amazon EKS: three CloudFormation stacks made for a run and proven gone after it, or a cluster adopted.

Everything that costs or creates goes through AWS's own ledger (stacks), so that a client that dies
loses nothing; what grows beside the stacks is found by tag and name. Nothing of boto3 is imported
before a client is asked for.
"""
