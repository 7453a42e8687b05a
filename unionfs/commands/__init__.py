"""What a person types: one module a subcommand, and what they share."""
