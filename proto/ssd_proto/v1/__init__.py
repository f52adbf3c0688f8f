"""Generated modules of the wire contract; the .proto files beside them say what they mean."""
