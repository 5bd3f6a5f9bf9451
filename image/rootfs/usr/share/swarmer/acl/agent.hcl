# The agent of a node: its own entries, and receiving its tokens.
agent "{{node}}" { policy = "write" }
node_prefix "" { policy = "read" }
service_prefix "" { policy = "read" }
agent_prefix "" { policy = "read" }
