"""`ssd experiment`: methods x settings x seeds, each cell a whole federation of real daemons; `ssd report` reads them.

=================  ==================================================================================
`settings`         the experiment file: frozen tables, unknown keys refused
`options`          the options of `ssd partition make` and `ssd evaluate` that a file may give
`measures`         what is measured in the end
`grid`             the cells, and what decides the numbers of each
`layout`           where everything is
`references`       rows that need no method: chance, raw pixels, untrained, dealt evenly, all in one place
`cell`             one cell from partition to result, as a process of its own; takes up what it finds
`measuring`        the final measures of a cell, by `ssd evaluate`
`stale`            ending what an earlier runner left behind
`run`              several cells at once, progress, and what failed
`live`             progress on a terminal or as plain lines
=================  ==================================================================================
"""
