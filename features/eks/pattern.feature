@eks @real-eks
Feature: The AWS pattern, row by row
  What the pattern has its reader build on AWS is there, or differs in a way that is recorded.
  The rows about PGO and PostgreSQL hold on every provider: their scenarios are in the other folders.

  Background:
    Given what AWS and Kubernetes say of the cluster

  Rule: The cluster is what the pattern describes

    @S1 @level-1
    Scenario: The control plane has its role
      Then the control plane's role is as the pattern asks

    @S2 @level-1
    Scenario Outline: The cluster has <part> that the pattern asks for
      Then <part> is as the pattern asks

      Examples:
        | part                  |
        | the cluster's version |
        | the cluster's network |
        | the way of access     |

    @S2 @level-1
    Scenario: The cluster has its node groups
      Then the node groups are as the pattern asks

    @S3 @smoke
    Scenario: Nodes are ready in every zone
      Then the nodes are as the pattern asks

    @S4 @level-1
    Scenario: IAM knows the cluster's issuer
      Then the OIDC provider is as the pattern asks

    @S5 @level-1
    Scenario: The CSI driver has a role that nobody else may take
      Then the CSI driver's role is as the pattern asks

    @S6 @smoke
    Scenario: The CSI driver's addon is active
      Then the CSI driver's addon is as the pattern asks

    @S7 @level-1
    Scenario: The operator needs nothing of AWS
      Then the operator's ServiceAccount is as the pattern asks

  Rule: Who looks for trouble finds logs

    @S17 @level-2
    Scenario: Control-plane logs arrive in CloudWatch
      Then control-plane logs are as the pattern asks

    @S17 @level-2
    Scenario: The instances' logs arrive in CloudWatch
      Then instance logs are as the pattern asks

  Rule: A cluster that exists is adopted and left alone

    @S18 @level-1
    Scenario: An adopted cluster carries nothing of a run
      Then an adopted cluster is as the pattern asks
