"""Schemas, resolvers and checks of the configuration. No torch, no Lightning in here."""
