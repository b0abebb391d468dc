"""A loopback WhatsApp: the server, its media hosts and the phones behind it, for tests and demonstrations only."""
