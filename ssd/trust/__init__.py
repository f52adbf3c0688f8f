"""Who is who: names in certificates, the federation's authority, and what both daemons check of them. No torch."""
