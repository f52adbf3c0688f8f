"""Model versions: the catalogue, how the next version is made, and what is measured or accounted of it."""
