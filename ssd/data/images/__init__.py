"""Where images come from: folders, built-in sets, decoding, and what identifies a data set."""
