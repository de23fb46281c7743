"""Maps users to their customers at payment gateways: a federated GraphQL subgraph."""

__version__ = "0.1.0"

DEFAULT_PORT = 8000
"""The port on which `serve` listens by default."""
