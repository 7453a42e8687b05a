"""Unions whose lower is slow, hangs or goes away."""
