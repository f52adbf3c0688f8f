"""Whole federations on this machine, driven as an operator would: through command lines, JSON logs and metrics pages.

gRPC is never spoken here. `ssd demo` and `ssd experiment` are both made of this.

=================  ==================================================================================
`plan`             what a federation is to be: rounds, clients, method
`hosting`          who hosts whom
`configs`          the daemons' configuration files
`vouching`         signing keys and registry for secure aggregation that expects lies
`children`         processes that end when this one ends, however it ends
`telemetry`        following a log, reading a metrics page
`federation`       one federation from start to drain, and what is taken out of it
`records`          what is known of it meanwhile and afterwards
`failure`          what a failed daemon looks like
`provenance`       versions and machine, for results that are passed on
`words`            sizes and durations for people
=================  ==================================================================================
"""
