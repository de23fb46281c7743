"""Write the alerts as a PrometheusRule for the Prometheus operator. Run `make alerts` after you change them."""

from pathlib import Path

ALERTS = Path(__file__).with_name("monitoring") / "alerts.yaml"
RESOURCE = Path(__file__).with_name("kubernetes") / "monitoring" / "alerts.yaml"
HEAD = """# Made by `make alerts` from deploy/monitoring/alerts.yaml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: gateway-tokens
  labels: { app.kubernetes.io/name: gateway-tokens }
spec:
"""


def resource() -> str:
    """The alerts, indented below the head of the resource."""
    lines = ALERTS.read_text().splitlines()
    body = lines[lines.index("groups:") :]
    return HEAD + "\n".join(f"  {line}" if line else "" for line in body) + "\n"


if __name__ == "__main__":
    RESOURCE.write_text(resource())
