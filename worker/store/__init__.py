"""What the worker must not lose: client state, finished updates, and what a participant of secure aggregation used."""
