@access @C9
Feature: Authentication
  From another pod of the same cluster, nobody logs in without a credential.

  Background:
    Given a PostgresCluster with 3 instances

  Rule: Nobody logs in without a credential

    @level-1
    Scenario Outline: <role> without a password is refused <transport>
      When somebody in another pod connects as <role> without a password <transport>
      Then no server lets them in

      Examples:
        | role          | transport   |
        | postgres      | with TLS    |
        | postgres      | without TLS |
        | the application's user | with TLS    |
        | the application's user | without TLS |
        | replicator    | with TLS    |
        | replicator    | without TLS |
        | _crunchyrepl  | with TLS    |
        | _crunchyrepl  | without TLS |

    @level-1
    Scenario: A wrong password is refused
      When somebody in another pod connects as the application's user with a wrong password
      Then no server lets them in

    @level-2
    Scenario: Replication cannot be started without a credential
      When somebody in another pod asks for replication as _crunchyrepl without a certificate
      Then no server lets them in

  Rule: Passwords travel encrypted only

    @level-2 @C7 @S16
    Scenario: The right password is refused without TLS
      When an application connects with the application's Secret without TLS
      Then the connection is refused because it is not encrypted
