"""Images: where they come from, how clients get theirs, and the random views training sees."""
