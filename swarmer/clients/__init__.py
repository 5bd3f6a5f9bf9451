"""Clients with which this host connects to the services of a cluster."""
