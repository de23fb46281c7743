"""What gateways report by themselves: one module for each, which checks signatures and names what happened."""

from graphql_api.webhooks.endpoint import webhooks
from graphql_api.webhooks.reports import Endpoint

__all__ = ["Endpoint", "webhooks"]
