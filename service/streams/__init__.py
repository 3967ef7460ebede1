"""Video without its transport: who is who from frame to frame, calm points, and state that outlives a connection.

Nothing in here reads a clock, opens a socket (but the Redis store) or knows HTTP and gRPC: time is handed in.
"""
