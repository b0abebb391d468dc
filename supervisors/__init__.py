"""Who keeps the actors alive: the watchdog, the fleet's and the devices' supervisors, the hardened Thespian base."""
