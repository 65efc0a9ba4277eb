"""Feature files as pytest items: collected directly, audited before anything is created."""
