"""Use cases and their permissions; one transaction per call."""
