"""What a participant asks of a run and of a task before it trains anything for a masked sum: the attempt's own rules, which `protocol` checks, come later."""
