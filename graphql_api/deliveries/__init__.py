"""Deliveries: the change feed sent to webhook endpoints, signed as Standard Webhooks have it."""
