@failover
Feature: Failover with synchronous replication
  What clients lose and how long they wait when the primary goes away.

  Rule: No acknowledged write is lost, and there is one primary at a time

    Background:
      Given a PostgresCluster with 3 instances and synchronous replication
      And clients are writing through the primary Service

    @disruptive
    Scenario Outline: With synchronous replication, <fault>
      When <fault>
      Then writes are acknowledged again within <budget>
      And 3 instances are running and streaming within 2 minutes
      And the timeline was raised exactly as often as Patroni recorded a promotion
      And no acknowledged write is lost
      And no two primaries acknowledged writes at the same time
      And the primary Service leads only to the primary within 30 seconds

      @level-1
      Examples:
        | fault                              | budget                 |
        | the primary is switched over       | 45 seconds             |
        | the primary pod is deleted         | 30 seconds             |

      @level-2
      Examples:
        | fault                              | budget                 |
        | the primary pod is force-deleted   | a lease and 20 seconds |
        | the primary's postmaster is killed | a lease and 20 seconds |

    @disruptive @level-2
    Scenario: With synchronous replication, the primary's Patroni is frozen
      When the primary's Patroni is frozen
      Then another instance leads within a lease and 20 seconds
      And writes are acknowledged again within a lease and 40 seconds
      And after Patroni runs again 3 instances are running and streaming within 3 minutes
      And the timeline was raised exactly as often as Patroni recorded a promotion
      And no acknowledged write is lost
      And no two primaries acknowledged writes at the same time

    @disruptive @level-2
    Scenario: With synchronous replication, the primary pod is deleted while the operator is down
      Given the operator is down
      When the primary pod is deleted
      Then writes are acknowledged again within 30 seconds
      And 3 instances are running and streaming within 2 minutes
      And the timeline was raised exactly as often as Patroni recorded a promotion
      And no acknowledged write is lost
      And no two primaries acknowledged writes at the same time

    @disruptive @level-2
    Scenario: The instance whose pod was deleted comes back as a streaming replica
      When the primary pod is deleted
      Then another instance leads within 30 seconds
      And the deleted instance streams as a replica within 2 minutes
      And no acknowledged write is lost

    @disruptive @level-3
    Scenario: With synchronous replication, three failovers in a row
      When the primary pod is deleted 3 times, each time after the cluster recovered
      Then writes are acknowledged again within 30 seconds
      And 3 instances are running and streaming within 2 minutes
      And the timeline was raised exactly as often as Patroni recorded a promotion
      And no acknowledged write is lost
      And no two primaries acknowledged writes at the same time
