@replication @S10 @C3
Feature: Synchronous replication
  A commit is acknowledged when a second server has it.

  Rule: One replica is synchronous, and the cluster says which

    @smoke
    Scenario: One replica is synchronous
      Given a PostgresCluster with 3 instances and synchronous replication
      Then exactly one replica is synchronous, and Patroni's record and the primary name the same one

  Rule: Under remote_apply a synchronous standby shows what was acknowledged

    @level-2
    Scenario: A row acknowledged under remote_apply is visible on the synchronous standby
      Given a PostgresCluster with 3 instances and synchronous replication
      When 200 rows are written under remote_apply, each read at once on the synchronous standby
      Then every one of them was visible there

  Rule: A lost synchronous standby is replaced

    @level-2 @disruptive
    Scenario: The synchronous standby dies and commits go on
      Given a PostgresCluster with 3 instances and synchronous replication
      And clients are writing through the primary Service
      When the synchronous standby's pod is force-deleted
      Then writes are acknowledged again within a lease and 15 seconds
      And exactly one replica is synchronous within 1 minute
      And no acknowledged write is lost
      And the timeline was not raised

    @level-4 @disruptive
    Scenario: The synchronous standby confirms nothing and is replaced
      Given a PostgresCluster with 3 instances and synchronous replication
      And clients are writing through the primary Service
      When the synchronous standby's walreceiver is frozen
      Then writes are acknowledged again within 1 minute and a lease and 15 seconds
      When the fault is taken back
      Then exactly one replica is synchronous within 1 minute
      And no acknowledged write is lost
      And the timeline was not raised

  Rule: Without any standby, only strict mode stops commits

    @level-3 @disruptive
    Scenario: No standby is left and commits go on with one copy
      Given a PostgresCluster with 3 instances and synchronous replication
      And clients are writing through the primary Service
      When both standbys are stopped
      Then writes are acknowledged again within a lease and 15 seconds
      And the cluster says that no standby is synchronous
      And the time with a single copy is measured and reported

    @level-3 @disruptive
    Scenario: No standby is left and strict mode blocks commits until one is back
      Given a PostgresCluster with 3 instances and strict synchronous replication
      And clients are writing through the primary Service
      When both standbys are stopped
      Then no write is acknowledged for 10 seconds
      And after a standby is back writes are acknowledged again within 1 minute
      And no acknowledged write is lost
