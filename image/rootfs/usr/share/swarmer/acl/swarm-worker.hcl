# A worker finds the managers, the token by which workers join, and whether the managers know it.
agent "{{node}}" { policy = "read" }
key "swarm/join/worker" { policy = "read" }
key "swarm/members/{{node}}" { policy = "read" }
node_prefix "" { policy = "read" }
service_prefix "" { policy = "read" }
