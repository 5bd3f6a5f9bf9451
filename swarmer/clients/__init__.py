"""How this host speaks to the services of a cluster."""
