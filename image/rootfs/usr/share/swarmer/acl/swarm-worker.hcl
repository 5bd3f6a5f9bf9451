# A worker finds the managers and the token by which workers join, records its own id, and sees whether the managers
# know it.
agent "{{node}}" { policy = "read" }
key "swarm/join/worker" { policy = "read" }
key "swarm/nodes/{{node}}" { policy = "write" }
key "swarm/members/{{node}}" { policy = "read" }
node_prefix "" { policy = "read" }
service_prefix "" { policy = "read" }
