"""Builds a release: the same input gives the same bytes.

lock          selects from requirements.lock the distributions that a target needs
wheel         builds the wheel of this source tree
environment   packs distributions and wheel as a relocatable virtual environment, for EMR and for Glue
functions     builds one zip for each Lambda function
release       puts everything into one folder with manifest.json, which `movement deploy` uploads
archives      writes tar and zip files without times, users or the file system's order
target        describes the machine that an environment is built for
"""
