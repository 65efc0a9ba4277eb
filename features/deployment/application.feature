@deployment
Feature: An application's first connection
  An application gets a Secret and a certificate authority, and needs nothing else.

  Background:
    Given a PostgresCluster with 3 instances

  Rule: The generated Secret is enough to connect

    @smoke @S11 @C7 @C9
    Scenario: An application connects with nothing but the generated Secret
      When an application connects with the application's Secret, verifying the server's certificate
      Then the connection is encrypted
      And the connected user is the application's
      And the connected server accepts writes

    @level-1 @C7
    Scenario: A certificate of another authority is refused
      When an application connects with the application's Secret, trusting another authority
      Then the connection fails because the certificate is not trusted

  Rule: Users and databases are as declared

    @level-1 @S10 @C8
    Scenario: Declared users and databases exist with the declared options
      Then every declared user exists and may log in
      And every declared database exists
      And the declared options of every user are in force

  Rule: PgBouncer serves the same database

    @level-1 @S14
    Scenario: An application connects through PgBouncer
      When an application connects through PgBouncer with the application's Secret
      Then the connected user is the application's
      And the connected server accepts writes
      And the connected server is the primary
