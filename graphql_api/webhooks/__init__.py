"""Webhooks of gateways: one module per gateway checks signatures and reads events."""

from graphql_api.webhooks.endpoint import webhooks
from graphql_api.webhooks.reports import WebhookEndpoint

__all__ = ["WebhookEndpoint", "webhooks"]
