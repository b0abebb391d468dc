"""The gateway: Salamander's HTTP side. So far it takes the delivery reports of platforms; off by default."""
