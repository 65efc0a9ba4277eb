"""Evidence becomes findings, findings a verdict per scenario, those the verdict of the run."""
