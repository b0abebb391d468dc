"""A loopback WhatsApp and loopback platforms: stand-ins for the demo, the tests and the benchmarks only."""
