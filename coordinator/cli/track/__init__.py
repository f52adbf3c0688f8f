"""`ssd-coordinator track`: copies a run's history into TensorBoard files and CSV, once or while the run goes on."""
