@security @eks @real-eks @S16
Feature: Security audit of the EKS cluster
  Twenty questions that follow from the pattern's best practices, each answered with what was seen.
  A warning is told and breaks nothing. What the pattern's own text asks for is a recorded deviation
  where the cluster follows it to the letter.

  Background:
    Given what AWS and Kubernetes say of the cluster

  Rule: The control plane is closed, current, and keeps a record

    @level-2
    Scenario Outline: The control plane is asked whether <finding>
      Then the audit finds that <finding>

      Examples:
        | finding                                                   |
        | the API endpoint is not open to everybody                 |
        | the Kubernetes version is supported                       |
        | Secrets are encrypted in the control plane                |
        | control-plane logs are on and kept for a stated time      |
        | the API server is verified                                |
        | the cluster says whose it is and cannot vanish by mistake |

  Rule: Rights are given to those who need them

    @level-2 @C8
    Scenario Outline: Rights are asked whether <right>
      Then the audit finds that <right>

      Examples:
        | right                                         |
        | nobody is an administrator by an old map      |
        | only the CSI driver may take the CSI role     |
        | nodes carry no right that a workload uses     |
        | the nodes' metadata service is closed to pods |
        | only what talks to AWS has a role there       |
        | the control plane's role is minimal           |
        | containers have no right they do not need     |

  Rule: Data are encrypted and the network is closed

    @level-2 @C7
    Scenario Outline: Protection is asked whether <protection>
      Then the audit finds that <protection>

      Examples:
        | protection                                           |
        | volumes are encrypted                                |
        | nodes stand in private subnets                       |
        | nodes and instances stand in three zones             |
        | NetworkPolicies are enforced                         |
        | PostgreSQL lets nobody in without credential and TLS |
        | security groups keep the internet out                |
        | backups go where nobody else reads                   |
