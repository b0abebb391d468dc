"""/metrics for Prometheus: what PostgreSQL knows, what this machine's processes use, what the gateway was asked."""
