"""Files of the state directory: content-addressed blobs, uploads in flight, and the spool of collected updates."""
