@diagnosis @deployment
Feature: Troubleshooting
  The questions of the pattern's troubleshooting page, each with an answer instead of a command: pods
  that do not start, replicas that fall behind, sessions that wait, replication that does not run.

  Background:
    Given a PostgresCluster with 3 instances

  Rule: What runs the servers is well

    @level-2 @S17
    Scenario: Pods and volumes work
      Then nothing keeps a pod or a volume of the cluster from working
      And no container of the cluster ran out of memory

    @level-2 @S17
    Scenario: The servers' logs are free of damage
      Then no server's log speaks of damaged data

    @level-2 @S17
    Scenario: Storage makes writes durable in time
      Then a durable write to every data volume takes at most 250 milliseconds

  Rule: Nobody waits for long

    @level-2 @S17 @replication
    Scenario: Replicas keep up with the primary
      Then every replica is within 16 MB of the primary within 30 seconds

    @level-2 @S17
    Scenario Outline: No session <waits>
      Then no session <waits> for longer than <time>

      Examples:
        | waits                    | time       |
        | waits for a lock         | 30 seconds |
        | is idle in a transaction | 10 minutes |

  Rule: Replication can run from every server

    @level-2 @S17
    Scenario: Every server accepts replication connections
      Then every server lets the replication user in with its certificate
