"""The sentences of the suite. Each names one thing below and does nothing of its own."""
