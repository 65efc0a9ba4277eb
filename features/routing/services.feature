@routing
Feature: Routing
  Writes go to the primary, reads to the replicas, by the names that applications use.

  Background:
    Given a PostgresCluster with 3 instances

  Rule: What is written through the primary Service is read through the replicas Service

    @smoke @S12 @S13
    Scenario: Rows written on the primary are read on a replica
      When the customers of the pattern are written through the primary Service
      Then the same customers are read through the replicas Service within 10 seconds

  Rule: A replica refuses writes and keeps nothing of them

    @level-1 @S13
    Scenario Outline: <statement> on a replica is refused as read-only
      When <statement> is tried through the replicas Service
      Then it is refused with SQLSTATE 25006
      And no server shows a trace of it

      Examples:
        | statement             |
        | INSERT                |
        | UPDATE                |
        | DELETE                |
        | CREATE TABLE          |
        | nextval()             |
        | SELECT … FOR UPDATE   |

  Rule: Services lead to the servers they are named for

    @level-1 @S11 @S14
    Scenario: The primary Service leads only to the primary
      When 40 connections are made through the primary Service
      Then every connection reached the one server that is not in recovery

    @level-1 @S11 @S14
    Scenario: The replicas Service leads only to replicas, and to all of them
      When 60 connections are made through the replicas Service
      Then every connection reached a server in recovery
      And every replica was reached

  Rule: Label, leader record and SQL name the same primary

    @level-1 @S11
    Scenario: Label, leader record and SQL agree
      Then the role label, the leader record and SQL name the same primary for 5 seconds

  Rule: Routing follows a switchover

    @level-2 @disruptive @S11 @C2
    Scenario: After a switchover all paths lead to the new primary
      When the primary is switched over
      Then the role label, the leader record and SQL name the new primary within 30 seconds
      And the primary Service leads only to the new primary within 30 seconds
      And PgBouncer leads only to the new primary within 45 seconds
      And the replicas Service leads only to replicas within 30 seconds
