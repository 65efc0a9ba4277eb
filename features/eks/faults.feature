@eks @real-eks @aws-faults @failover @C2 @S14 @S15
Feature: Faults that only AWS can make
  An instance, a volume or a zone goes away under the primary. The budgets leave room for what AWS and
  Kubernetes take: a volume of a lost instance is set free after six minutes, a new node joins after
  some more.

  Rule: The loss of a part of AWS costs a failover and no acknowledged write

    Background:
      Given a PostgresCluster with 3 instances and synchronous replication
      And the primary runs on a node that neither the clients nor the operator need
      And clients are writing through the primary Service

    @disruptive @level-3
    Scenario Outline: Without notice, <fault>
      When <fault>
      Then another instance leads within a lease and 60 seconds
      And writes through the primary Service are acknowledged again within a lease and 90 seconds
      When the fault is taken back
      Then 3 instances are running and streaming within 20 minutes
      And the timeline was raised exactly as often as Patroni recorded a promotion
      And no acknowledged write is lost
      And no two primaries acknowledged writes at the same time

      Examples:
        | fault                                      |
        | AWS stops the primary's instance           |
        | AWS terminates the primary's instance      |
        | AWS detaches the primary's data volume     |
        | AWS denies the primary's zone all traffic  |

    @disruptive @level-3
    Scenario: With notice, AWS takes a zone's nodes away
      When AWS takes the nodes of the primary's zone away
      Then another instance leads within a lease and 60 seconds
      And writes through the primary Service are acknowledged again within a lease and 90 seconds
      When the fault is taken back
      Then 3 instances are running and streaming within 20 minutes
      And the timeline was raised exactly as often as Patroni recorded a promotion
      And no acknowledged write is lost
      And no two primaries acknowledged writes at the same time
