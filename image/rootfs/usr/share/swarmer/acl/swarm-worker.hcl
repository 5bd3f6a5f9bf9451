# A worker reads the managers and the join token of workers, records its own id, and reads the leader's view of it.
agent "{{node}}" { policy = "read" }
key "swarm/join/worker" { policy = "read" }
key "swarm/nodes/{{node}}" { policy = "write" }
key "swarm/members/{{node}}" { policy = "read" }
node_prefix "" { policy = "read" }
service_prefix "" { policy = "read" }
