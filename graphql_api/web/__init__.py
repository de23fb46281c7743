"""HTTP: GraphQL over HTTP, probes, request ids and the access log. What a query means is left to others."""
