"""Benchmarks: what turns measurements into claims, tables and the page."""
