@failover @C2
Feature: Failover with asynchronous replication
  The control: the same faults where only the weaker promise is made, so that a difference shows.

  Rule: What is lost is the end of the log

    Background:
      Given a PostgresCluster with 3 instances and asynchronous replication
      And clients are writing through the primary Service

    @disruptive
    Scenario Outline: With asynchronous replication, <fault>
      When <fault>
      Then writes are acknowledged again within <budget>
      And 3 instances are running and streaming within 2 minutes
      And the timeline was raised exactly as often as Patroni recorded a promotion
      And only the end of the log is lost

      @level-2
      Examples:
        | fault                              | budget                 |
        | the primary is switched over       | a lease and 25 seconds |
        | the primary pod is deleted         | a lease and 10 seconds |

      @level-4
      Examples:
        | fault                              | budget                 |
        | the primary pod is force-deleted   | a lease and 20 seconds |
        | the primary's postmaster is killed | a lease and 20 seconds |

    @disruptive @level-3
    Scenario: With asynchronous replication, the primary's Patroni is frozen
      When the primary's Patroni is frozen
      Then another instance leads within a lease and 20 seconds
      And writes are acknowledged again within a lease and 40 seconds
      And nobody writes to a demoted primary for longer than a lease and 45 seconds
      And nobody reads stale rows from a demoted primary for longer than a lease and 45 seconds
      And after Patroni runs again 3 instances are running and streaming within 3 minutes
      And only the end of the log is lost

    @disruptive @level-4
    Scenario: With asynchronous replication, the primary pod is deleted while the operator is down
      Given the operator is down
      When the primary pod is deleted
      Then writes are acknowledged again within a lease and 10 seconds
      And 3 instances are running and streaming within 2 minutes
      And only the end of the log is lost

    @disruptive @level-4
    Scenario: With asynchronous replication, three failovers in a row
      When the primary pod is deleted 3 times, each time after the cluster recovered
      Then writes are acknowledged again within a lease and 10 seconds
      And the distribution of outages is reported
      And 3 instances are running and streaming within 2 minutes
      And the timeline was raised exactly as often as Patroni recorded a promotion
      And only the end of the log is lost

  Rule: An old primary comes back as what the new one is

    @disruptive @level-3 @partition
    Scenario: An old primary that wrote alone rejoins by rewind
      Given a PostgresCluster with 3 instances and asynchronous replication
      And clients are writing through the primary Service
      When the primary is cut off from everybody but its clients
      Then another instance leads within a lease and 20 seconds
      And writes are acknowledged again within a lease and 40 seconds
      When the fault is taken back
      Then 3 instances are running and streaming within 3 minutes
      And the old primary has rejoined by rewind and its divergent rows are gone
      And nobody writes to a demoted primary for longer than a lease
      And only the end of the log is lost
