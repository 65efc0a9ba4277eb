@replication @S14
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

  Rule: How stale a replica is can be told

    @level-4 @disruptive @S17
    Scenario: Replicas whose replay is paused are stale
      Given clients are writing through the primary Service
      When replay on every replica is paused
      Then writes are acknowledged for 5 seconds without a pause of more than 2 seconds
      And the staleness of replicas is measured and reported
      And some read of a replica was stale by 4 seconds or more
      When the fault is taken back
      Then every replica streams from the primary for 2 seconds

  Rule: A stale replica is never promoted

    @level-3 @disruptive
    Scenario: The most advanced replica is promoted
      Given a PostgresCluster with 3 instances and asynchronous replication
      And clients are writing through the primary Service
      When a replica is held back
      And the primary's Patroni is frozen
      Then another instance leads within a lease and 20 seconds
      And the most advanced replica was promoted, not the one that was held back
      When the fault is taken back
      Then 3 instances are running and streaming within 3 minutes
      And only the end of the log is lost
