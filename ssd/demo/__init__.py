"""`ssd demo`: a whole federation on one machine, on real images, over real gRPC, and what came of it.

A coordinator, workers that host ten clients, and an evaluator run as processes of their own, twice: once with
FedAlignUniform, once with SSD. The demo drives them as an operator would, through their command lines, their JSON
logs and their metrics pages; it never speaks gRPC itself.

=================  ==================================================================================
`settings`         what is run: clients, rounds, hyper-parameters, who hosts whom
`configs`          the daemons' configuration files
`children`         processes that end when the demo ends, however it ends
`telemetry`        following a log, reading a metrics page
`federation`       one federation from start to drain, and what is taken out of it
`records`          what is known of it meanwhile and afterwards
`live`             progress, on a terminal or as plain lines
`place`            the output folder
`failure`          what a failed daemon looks like
`closing`          the measurements, the table, the pictures
`summary`          `summary.json`
`run`              the order of things
=================  ==================================================================================
"""
