@deployment
Feature: The operator
  PGO is there, serves its resource and watches over the cluster (pattern rows S8 and S9).

  Rule: The operator runs and its resource can be used

    @smoke @S8 @S9
    Scenario: The operator runs and serves PostgresCluster
      Given the operator is installed
      Then the operator's Deployment is available
      And the API serves PostgresCluster in the version that the suite uses
      And the operator says which version it is

    @level-2 @S9 @C1
    Scenario: The operator reports on the cluster it was given
      Given a PostgresCluster with 3 instances
      Then the PostgresCluster's status describes its newest generation
      And the PostgresCluster's status counts 3 ready instances
