"""The stages: short glue from configuration to objects to artefact, one file each.

A stage module has ``run(node, inputs, folder, runtime)``, which fills ``folder`` from the folders
of the inputs and returns the artefact's facts as plain JSON. What an interrupted call left in
``folder`` is there again in the next one. What the rest of the house has to know of a stage is in
``ddoq.pipeline.stages``; nothing but the computation of a node imports its module, and torch with
it. Beside the stages lie the files of what several of them share.
"""
