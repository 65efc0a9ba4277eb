"""What explains a failure, taken while it is still there: after the verdict, before any clean-up."""
