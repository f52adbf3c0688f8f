"""The only room of the worker that knows gRPC and protobuf."""
