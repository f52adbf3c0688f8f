"""Traces of rounds: ids that both sides derive, spans as plain records, and their way to a collector.

Nothing here knows what a round is made of: `coordinator.telemetry.round_spans` and `worker.telemetry.task_spans` do. Only
`ssd.daemon.tracing.exporter` imports OpenTelemetry, and only it is imported late: when tracing is configured.
"""
