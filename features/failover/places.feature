@failover @C2 @S14
Feature: Failover when a place is lost
  A node, a zone or everything that a policy forbids goes away with the primary on it.

  Rule: The loss of one place costs a failover and no acknowledged write

    Background:
      Given a PostgresCluster with 3 instances and synchronous replication
      And the primary runs on a node that neither the clients nor the operator need
      And clients are writing through the primary Service

    @disruptive
    Scenario Outline: With three places, <fault>
      When <fault>
      Then another instance leads within a lease and 20 seconds
      And writes through the primary Service are acknowledged again within a lease and 30 seconds
      When the fault is taken back
      Then 3 instances are running and streaming within 3 minutes
      And the timeline was raised exactly as often as Patroni recorded a promotion
      And no acknowledged write is lost
      And no two primaries acknowledged writes at the same time

      @level-3 @node-loss
      Examples:
        | fault                               |
        | the primary's node vanishes         |

      @level-3 @node-drain
      Examples:
        | fault                               |
        | the primary's node is drained       |

      @level-3 @node-partition
      Examples:
        | fault                               |
        | the primary's node is cut off       |

      @level-3 @zone-loss
      Examples:
        | fault                               |
        | the primary's zone vanishes         |

  Rule: A policy cuts off whom it names and costs no acknowledged write
    What a network does to connections that were open before is its own affair. Where it lets them
    live, Patroni keeps its lease and nobody may take over; where it ends them, somebody does.

    Background:
      Given a PostgresCluster with 3 instances and synchronous replication
      And the primary runs on a node that neither the clients nor the operator need
      And clients are writing through the primary Service

    @disruptive @level-3 @network-policy
    Scenario: A NetworkPolicy isolates the primary and is taken back
      When a NetworkPolicy isolates the primary
      Then at most one instance takes writes for a lease and 10 seconds
      When the fault is taken back
      Then writes begun from now on are acknowledged within a lease and 20 seconds
      And 3 instances are running and streaming within 3 minutes
      And the timeline was raised exactly as often as Patroni recorded a promotion
      And no acknowledged write is lost
      And no two primaries acknowledged writes at the same time
