"""Webhooks out: what happens is told to endpoints. What platforms send to us is taken in gateway/receiving.py."""
