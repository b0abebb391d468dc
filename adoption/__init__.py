"""Bringing paired numbers along from other tools: their sessions are copied, and nobody scans again."""
