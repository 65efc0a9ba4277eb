@upgrade
Feature: The operator is upgraded
  Another release of PGO takes over the clusters of the one before. It may declare other pods, and
  then replaces them one by one.

  Rule: An upgrade costs at most one switchover and no acknowledged write

    @disruptive @level-3 @operator-upgrade
    Scenario: The operator is upgraded while clients write
      Given a PostgresCluster with 3 instances and synchronous replication
      And clients are writing through the primary Service
      When the operator is upgraded
      Then the new operator leads
      And every pod is what the new operator declares within 5 minutes
      And the leader changed at most 1 time
      And it is reported which pods the upgrade restarted
      And writes are acknowledged again within 5 minutes
      And every declared instance is running and streaming within 2 minutes
      And no acknowledged write is lost
      And no two primaries acknowledged writes at the same time
