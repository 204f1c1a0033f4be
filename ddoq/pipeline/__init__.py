"""Stage graph, content keys, artefact store, provenance and cost. No torch, no Hydra in here."""
