# A manager founds the swarm under a lock, and publishes the join tokens.
agent "{{node}}" { policy = "read" }
session "{{node}}" { policy = "write" }
key_prefix "swarm/" { policy = "write" }
service "swarm" { policy = "write" }
node_prefix "" { policy = "read" }
service_prefix "" { policy = "read" }
