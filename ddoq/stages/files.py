"""Names of files in artefacts that are read outside the stage that writes them."""

CODEBOOK = "codebook.safetensors"  # of ``quantize``: see ``ddoq.quantizers.codebook``
TEACHER = "teacher.safetensors"  # of ``fit_teacher``: the network's weights
PER_IMAGE = "images.parquet"  # of ``fidelity``: label, weight, entropy, correct; one row per image
