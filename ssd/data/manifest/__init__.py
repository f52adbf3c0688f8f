"""A list of images as a table: one row an image, with its client, its class and its split. `table` imports no torch."""
