"""WhatsApp devices over neonize: shards (processes), device actors, the client, the stored session."""
