"""What an encoder is worth: probes on labelled data and the geometry of its representation."""
