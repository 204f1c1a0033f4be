"""Names of files in artefacts that are read outside the stage that writes them."""

CODEBOOK = "codebook.safetensors"  # of ``quantize``: see ``ddoq.quantizers.codebook``
TEACHER = "teacher.safetensors"  # of ``fit_teacher``: the network's weights
START = "start"  # of ``distill``: the images before the first step, named as those after the last
PER_IMAGE = "images.parquet"  # of ``fidelity``: label, weight, entropy, correct; one row per image
