@deployment @backup @C4
Feature: The first backup
  A cluster is not protected before its first backup exists.

  Rule: A new cluster makes a full backup on its own

    @level-1
    Scenario: A first full backup exists
      Given a PostgresCluster with 3 instances
      Then a full backup is complete within 5 minutes
      And the repository holds the write-ahead log from that backup on

    @level-2
    Scenario: Write-ahead log is archived without failures since the first backup
      Given a PostgresCluster with 3 instances
      When the primary switches to a new write-ahead log segment
      Then that segment is archived within 1 minute
