@failover
Feature: Failover with asynchronous replication
  The control: the same faults where only the weaker promise is made, so that a difference shows.

  Rule: What is lost is the end of the log and stays within the declared allowance

    Background:
      Given a PostgresCluster with 3 instances and asynchronous replication
      And clients are writing through the primary Service

    @disruptive
    Scenario Outline: With asynchronous replication, <fault>
      When <fault>
      Then writes are acknowledged again within <budget>
      And the timeline was raised exactly as often as Patroni recorded a promotion
      And only the end of the log is lost, within the declared allowance
      And 3 instances are running and streaming within 2 minutes

      @level-2
      Examples:
        | fault                               | budget                 |
        | the primary is switched over        | 20 seconds             |
        | the primary pod is deleted          | 30 seconds             |

      @level-3
      Examples:
        | fault                               | budget                 |
        | the primary pod is force-deleted    | a lease and 20 seconds |
        | the primary's postmaster is killed  | a lease and 20 seconds |
        | the primary's Patroni is frozen     | a lease and 20 seconds |

    @disruptive @level-3
    Scenario: With asynchronous replication, the primary pod is deleted while the operator is down
      Given the operator is down
      When the primary pod is deleted
      Then writes are acknowledged again within 30 seconds
      And only the end of the log is lost, within the declared allowance

    @disruptive @level-3
    Scenario: With asynchronous replication, three failovers in a row
      When the primary pod is deleted 3 times, each time after the cluster recovered
      Then writes are acknowledged again within 30 seconds
      And the timeline was raised exactly as often as Patroni recorded a promotion
      And only the end of the log is lost, within the declared allowance
