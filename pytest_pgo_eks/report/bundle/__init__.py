"""A run as one file that somebody else can check: evidence, raw histories, checksums, manifest."""
