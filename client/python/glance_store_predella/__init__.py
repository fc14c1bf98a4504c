"""Predella as a store of OpenStack Glance: see docs/glance.md."""
