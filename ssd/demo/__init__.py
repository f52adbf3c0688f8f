"""`ssd demo`: a whole federation on one machine, on real images, over real gRPC, and what came of it.

A coordinator, workers that host ten clients, and an evaluator run as processes of their own, twice: once with
FedAlignUniform, once with SSD. The demo drives them as an operator would, through their command lines, their JSON
logs and their metrics pages; it never speaks gRPC itself.

=================  ==================================================================================
`settings`         what is run: clients, rounds, hyper-parameters, who hosts whom
`contest`          the two federations (made of `ssd.federation`)
`records`          what a contender leaves behind
`live`             progress, on a terminal or as plain lines
`place`            the output folder
`closing`          the measurements, the table, the pictures
`summary`          `summary.json`
`run`              the order of things
=================  ==================================================================================
"""
