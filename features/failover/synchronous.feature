@failover @C2 @C3
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
        | the primary is switched over       | a lease and 25 seconds |
        | the primary pod is deleted         | a lease and 10 seconds |

      @level-2
      Examples:
        | fault                              | budget                 |
        | the primary pod is force-deleted   | a lease and 20 seconds |
        | the primary's postmaster is killed | a lease and 20 seconds |

      @level-3
      Examples:
        | fault                                      | budget                 |
        | the primary's database container is killed | a lease and 20 seconds |

      @level-4
      Examples:
        | fault                                      | budget                 |
        | a backend of the primary is killed         | a lease and 20 seconds |
        | PgBouncer is killed                        | 20 seconds             |
        | the primary's Patroni is killed            | a lease and 20 seconds |
        | PgBouncer's pod is force-deleted           | 30 seconds             |

    @disruptive @level-2
    Scenario: With synchronous replication, the primary's Patroni is frozen
      When the primary's Patroni is frozen
      Then another instance leads within a lease and 20 seconds
      And writes are acknowledged again within a lease and 40 seconds
      And after Patroni runs again 3 instances are running and streaming within 3 minutes
      And the timeline was raised exactly as often as Patroni recorded a promotion
      And no acknowledged write is lost
      And no two primaries acknowledged writes at the same time
      And nobody writes to a demoted primary for longer than 0 seconds
      And nobody reads stale rows from a demoted primary for longer than a lease and 45 seconds

    @disruptive @level-2
    Scenario: With synchronous replication, the primary pod is deleted while the operator is down
      Given the operator is down
      When the primary pod is deleted
      Then writes are acknowledged again within a lease and 10 seconds
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
      Then writes are acknowledged again within a lease and 10 seconds
      And the distribution of outages is reported
      And 3 instances are running and streaming within 2 minutes
      And the timeline was raised exactly as often as Patroni recorded a promotion
      And no acknowledged write is lost
      And no two primaries acknowledged writes at the same time

    @disruptive @level-4
    Scenario: With synchronous replication, as many failovers in a row as the run was told
      When the primary pod is deleted as often as the run was told, each time after the cluster recovered
      Then writes are acknowledged again within a lease and 10 seconds
      And the distribution of outages is reported
      And 3 instances are running and streaming within 2 minutes
      And no acknowledged write is lost
      And no two primaries acknowledged writes at the same time

  Rule: What harms no session is noticed by nobody

    Background:
      Given a PostgresCluster with 3 instances and synchronous replication
      And clients are writing through the primary Service

    @disruptive @level-3
    Scenario: The servers' certificate is replaced under running clients
      When the servers' certificate is replaced
      Then writes on every path are acknowledged within 1 second all the same
      And the primary Service leads only to the primary within 30 seconds
      And the timeline was not raised
      And no acknowledged write is lost

    @disruptive @level-4
    Scenario: The checkpointer is frozen and writes go on
      When the primary's checkpointer is frozen
      Then writes are acknowledged for 10 seconds without a pause of more than 2 seconds
      When the fault is taken back
      Then 3 instances are running and streaming within 1 minute
      And the timeline was not raised
      And no acknowledged write is lost

    @disruptive @level-4
    Scenario: Archiving fails and writes go on
      When the primary's archiving fails
      Then writes are acknowledged for 10 seconds without a pause of more than 2 seconds
      When the fault is taken back
      Then the primary archives again within 2 minutes
      And 3 instances are running and streaming within 1 minute
      And the timeline was not raised
      And no acknowledged write is lost

  Rule: A frozen postmaster takes no new sessions, and the sessions it has go on

    @disruptive @level-3
    Scenario: The primary's postmaster is frozen and thawed
      Given a PostgresCluster with 3 instances and synchronous replication
      And clients are writing through the primary Service
      When the primary's postmaster is frozen
      Then sessions from before are acknowledged for 10 seconds without a pause of more than 2 seconds
      When the fault is taken back
      Then writes begun from now on are acknowledged within 20 seconds
      And 3 instances are running and streaming within 2 minutes
      And no acknowledged write is lost
      And no two primaries acknowledged writes at the same time

  Rule: Transactions keep their isolation while the primary changes

    @disruptive
    Scenario Outline: The primary pod is deleted under <level> transactions
      Given a PostgresCluster with 3 instances and synchronous replication
      And clients are writing and running <level> transactions
      When the primary pod is deleted
      Then writes are acknowledged again within a lease and 10 seconds
      And 3 instances are running and streaming within 2 minutes
      And the transactions kept <level> isolation
      And no acknowledged write is lost

      @level-3
      Examples:
        | level           |
        | serializable    |

      @level-4
      Examples:
        | level           |
        | read committed  |
        | repeatable read |
