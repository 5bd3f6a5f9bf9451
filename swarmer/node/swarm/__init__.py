"""Forms the docker swarm of the cluster, and keeps it in order. See docs/swarm.md."""
