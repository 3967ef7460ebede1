"""Answer photographs with poses, over HTTP and gRPC. Never imports torch or the trainer."""
