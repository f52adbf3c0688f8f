"""A participant of secure aggregation: its keys and its steps."""
