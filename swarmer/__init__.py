"""Swarmer boots real docker swarm and consul clusters and proves what they promise."""
