"""Who may take part: the certificate authority, join tokens, enrolment, revocation, and the caller of a request.

It knows certificates and stores, and nothing of rounds or gRPC.
"""
