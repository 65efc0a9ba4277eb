"""What ran compared with what was required: may this release go out, yes or no, and why."""
