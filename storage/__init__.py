"""What lasts: PostgreSQL, its schema, and every query over it."""
