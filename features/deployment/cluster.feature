@deployment
Feature: The PostgresCluster
  What stands in Kubernetes after one PostgresCluster was applied (pattern rows S10, S11 and S14).

  Background:
    Given a PostgresCluster with 3 instances

  Rule: The declared instances run, each with its own storage

    @smoke @S10 @C1
    Scenario: Three instances are ready within the budget
      Then 3 instances were ready within 5 minutes of the PostgresCluster's creation
      And one instance is the primary and 2 are replicas

    @level-1 @S9 @S10
    Scenario: Every instance has a bound volume of its own
      Then every instance has a bound data volume of its own
      And the backup repository has a bound volume

  Rule: Instances are spread, so that one node or zone takes only one of them

    @level-1 @zones @S14 @S16
    Scenario: Every instance runs on its own node
      Then every instance runs on a node of its own

    @level-1 @zones @S14 @S16
    Scenario: Every instance runs in its own zone
      Then every instance runs in a zone of its own

  Rule: What applications and people look for carries the documented names

    @level-1 @S11
    Scenario: Pods carry the labels by which PGO and people find them
      Then every instance pod is labelled with its cluster, its instance set and its instance
      And exactly one instance pod is labelled as the primary and 2 as replicas

    @level-1 @S11
    Scenario Outline: The <service> Service exists and leads somewhere
      Then the <service> Service offers port 5432
      And the <service> Service has at least one ready endpoint

      Examples:
        | service  |
        | ha       |
        | replicas |

    @level-1 @S11
    Scenario: The user's Secret says how to connect
      Then the Secret of the application's user names the host, port, database, user and password

    @level-2 @S14
    Scenario: A disruption budget protects the instance set
      Then a disruption budget keeps at least one instance of the set running
