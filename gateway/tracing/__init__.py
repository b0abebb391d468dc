"""Traces: from an HTTP request to its message's delivery, exported to an OpenTelemetry collector. Off unless set."""
