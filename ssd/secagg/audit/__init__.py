"""Transcripts of rounds and the audit that verifies them from outside."""
