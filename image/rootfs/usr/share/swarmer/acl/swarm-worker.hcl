# A worker finds the managers, and the token by which workers join.
agent "{{node}}" { policy = "read" }
key "swarm/join/worker" { policy = "read" }
node_prefix "" { policy = "read" }
service_prefix "" { policy = "read" }
