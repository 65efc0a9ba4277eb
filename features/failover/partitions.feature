@failover @partition @C2
Feature: Failover when the network is cut
  Packets vanish and nobody is told: no connection is refused, no session is ended.

  Rule: Whoever is cut off stops in time, and the others go on without loss

    Background:
      Given a PostgresCluster with 3 instances and synchronous replication
      And clients are writing through the primary Service

    @disruptive
    Scenario Outline: In a partition, <fault>
      When <fault>
      Then another instance leads within a lease and 20 seconds
      And writes are acknowledged again within a lease and 40 seconds
      When the fault is taken back
      Then 3 instances are running and streaming within 3 minutes
      And the timeline was raised exactly as often as Patroni recorded a promotion
      And no acknowledged write is lost
      And no two primaries acknowledged writes at the same time
      And nobody writes to a demoted primary for longer than 0 seconds

      @level-2
      Examples:
        | fault                                                               |
        | the primary is cut off                                              |

      @level-4
      Examples:
        | fault                                                               |
        | the primary is cut off from everybody but its clients               |

      @level-4 @one-way-partition
      Examples:
        | fault                                                               |
        | the primary can send nothing                                        |
        | the primary can receive nothing                                     |

      @level-4 @packet-reset
      Examples:
        | fault                                                               |
        | every packet from and to the primary is answered by a reset         |

    @disruptive @level-4
    Scenario: The primary alone cannot reach the API server
      When the primary cannot reach the API server
      Then another instance leads within a lease and 20 seconds
      And new sessions write through the primary Service within a lease and 20 seconds
      And at most one instance takes writes for a lease
      When the fault is taken back
      Then 3 instances are running and streaming within 3 minutes
      And the timeline was raised exactly as often as Patroni recorded a promotion
      And no acknowledged write is lost
      And no two primaries acknowledged writes at the same time
      And nobody writes to a demoted primary for longer than 0 seconds
      And nobody reads stale rows from a demoted primary for longer than a lease and 30 seconds

    @disruptive @level-4 @packet-loss
    Scenario: One packet in ten is lost and writes go on
      When one packet in ten of the primary is lost
      Then writes are acknowledged for 20 seconds without a pause of more than 10 seconds
      When the fault is taken back
      Then 3 instances are running and streaming within 2 minutes
      And no acknowledged write is lost
      And no two primaries acknowledged writes at the same time

  Rule: Without the API server nobody may lead, unless everybody agrees

    @disruptive @level-3
    Scenario: No instance reaches the API server
      Given a PostgresCluster with 3 instances and synchronous replication
      And clients are writing through the primary Service
      When no instance can reach the API server
      Then writes stop within a lease
      And no write is acknowledged for 5 seconds
      When the fault is taken back
      Then writes begun from now on are acknowledged within a lease and 20 seconds
      And 3 instances are running and streaming within 3 minutes
      And no acknowledged write is lost
      And no two primaries acknowledged writes at the same time

    @disruptive @level-3
    Scenario: No instance reaches the API server in failsafe mode
      Given a PostgresCluster with 3 instances and synchronous replication
      And failsafe mode is on
      And clients are writing through the primary Service
      When no instance can reach the API server
      Then writes are acknowledged for a lease and 10 seconds without a pause of more than 2 seconds
      When the fault is taken back
      Then 3 instances are running and streaming within 2 minutes
      And the timeline was not raised
      And no acknowledged write is lost
      And no two primaries acknowledged writes at the same time
