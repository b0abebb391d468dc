"""Who acts: the router, the WhatsApp devices, the platforms, and the client that talks to them."""
