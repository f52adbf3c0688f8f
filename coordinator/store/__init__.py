"""Where the coordinator keeps its journal, blobs and uploads in flight."""
