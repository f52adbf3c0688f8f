"""The SQLite journal: schema, records, rules and migrations. What is here decides what survives a crash."""
