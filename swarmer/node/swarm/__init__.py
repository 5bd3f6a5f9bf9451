"""Forms the docker swarm of the cluster and keeps it as the spec describes it. See docs/swarm.md."""
