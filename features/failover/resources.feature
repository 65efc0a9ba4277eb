@failover
Feature: Failover when resources run out
  Nothing is dead and nothing is cut off, there is only not enough of something.

  Rule: A full data volume costs no acknowledged write

    @disruptive @level-4 @limited-volumes
    Scenario: The primary's data volume is full until somebody makes room
      Given a PostgresCluster with 3 instances and synchronous replication
      And the primary's data volume is as small as its claim and nobody else's
      And clients are writing through the primary Service
      When the primary's data volume is full
      Then at most one instance takes writes for a lease and 10 seconds
      When the fault is taken back
      Then writes begun from now on are acknowledged within a lease and 40 seconds
      And every declared instance is running and streaming within 5 minutes
      And the timeline was raised exactly as often as Patroni recorded a promotion
      And no acknowledged write is lost
      And no two primaries acknowledged writes at the same time

  Rule: Slow is not dead

    Background:
      Given a PostgresCluster with 3 instances and synchronous replication
      And clients are writing through the primary Service

    @disruptive @level-4
    Scenario: Other processes take processors and memory and writes go on
      When other processes beside the primary take processors and memory
      Then writes are acknowledged for 20 seconds without a pause of more than 5 seconds
      When the fault is taken back
      Then 3 instances are running and streaming within 1 minute
      And the timeline was raised exactly as often as Patroni recorded a promotion
      And no acknowledged write is lost
      And no two primaries acknowledged writes at the same time

    @disruptive @level-4 @delay
    Scenario: Every packet is late and writes go on
      When every packet of the primary is a tenth of a second late
      Then writes are acknowledged for 20 seconds without a pause of more than 5 seconds
      When the fault is taken back
      Then 3 instances are running and streaming within 1 minute
      And the timeline was raised exactly as often as Patroni recorded a promotion
      And no acknowledged write is lost
      And no two primaries acknowledged writes at the same time

  Rule: A wrong clock costs nothing
    Leases are judged by when a change was seen, never by whose clock says what.

    @disruptive @level-4 @clock-shift
    Scenario: The primary's clock is ten minutes ahead and writes go on
      Given a PostgresCluster with 3 instances and synchronous replication
      And clients are writing through the primary Service
      When the clock of the primary's node is ten minutes ahead
      Then writes are acknowledged for a lease and 10 seconds without a pause of more than 2 seconds
      When the fault is taken back
      Then 3 instances are running and streaming within 2 minutes
      And no acknowledged write is lost
      And no two primaries acknowledged writes at the same time
