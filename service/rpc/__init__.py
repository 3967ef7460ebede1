"""The gRPC edge: protobuf to frames, predictions to protobuf."""
