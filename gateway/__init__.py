"""The gateway: Salamander's HTTP side. The API and the dashboard on one port, platforms' webhooks on another.

Every change goes through the router's messages; what is read is read from PostgreSQL. The gateway holds no state of its
own and may be killed at any time.
"""
