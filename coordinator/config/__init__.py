"""The coordinator's settings: sections, checks across sections, and what is derived from them.

Nothing outside this room, `cli` and `app` takes the whole configuration; a component gets its own section.
"""
