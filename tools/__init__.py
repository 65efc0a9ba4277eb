"""Programs for those who work on the harness; nothing of them is shipped."""
