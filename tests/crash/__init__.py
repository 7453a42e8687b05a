"""Proofs of docs/durability.md: power cuts, kills and failing system calls."""
