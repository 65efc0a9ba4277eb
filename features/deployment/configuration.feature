@deployment
Feature: Configuration
  What was declared is in force, asked of the server and not of a file.

  Background:
    Given a PostgresCluster with 3 instances

  Rule: Every server runs with what replication needs

    @level-1 @S10 @S17
    Scenario Outline: Every server has <parameter> <comparison> <value>
      Then on every server <parameter> is <comparison> <value>

      Examples:
        | parameter             | comparison | value   |
        | wal_level             | one of     | replica, logical |
        | max_wal_senders       | at least   | 10      |
        | wal_keep_size         | at least   | 64MB    |
        | hot_standby           | exactly    | on      |
        | wal_log_hints         | exactly    | on      |
        | ssl                   | exactly    | on      |
        | archive_mode          | exactly    | on      |
        | data_checksums        | exactly    | on      |

    @level-1 @S17
    Scenario: Replicas know where to stream from
      Then every replica has a standby signal and connects to the primary with a verified certificate

  Rule: Declared access rules are in force

    @level-1 @S10 @C8
    Scenario: The server's access rules are those that were declared, in their order
      Then every server's access rules contain the declared ones in their order
      And no access rule of any server failed to load

  Rule: A changed parameter arrives, with a restart only when PostgreSQL needs one

    @level-2 @disruptive @C1
    Scenario: A parameter that can be reloaded arrives without a restart
      When the parameter "work_mem" is set to "5MB"
      Then on every server work_mem is 5MB within 1 minute
      And no server was restarted

    @level-3 @disruptive @C1
    Scenario: A parameter that needs a restart arrives with one
      When the parameter "max_connections" is raised by 10
      Then on every server max_connections has the new value within 3 minutes
      And every server was restarted in place
      And no server waits for a restart
