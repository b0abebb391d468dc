"""Loopback stand-ins for the platforms: strict about encoding and credentials, faulty on request."""
