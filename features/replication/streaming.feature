@replication
Feature: Streaming replication
  Replicas follow the primary closely and say so.

  Background:
    Given a PostgresCluster with 3 instances

  Rule: Every replica streams from the primary

    @smoke
    Scenario: Every replica streams
      Then every replica streams from the primary for 5 seconds

    @level-1
    Scenario: Replicas catch up within the budget
      When 2000 rows are written through the primary Service
      Then every replica has replayed them within 10 seconds
