"""gRPC and protobuf stop here."""
