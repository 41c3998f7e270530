"""What `movement package` builds, the same bytes from the same input:

lock          requirements.lock → the distributions that a target needs
wheel         this source tree → the wheel
environment   distributions and wheel → a relocatable virtual environment, for EMR and for Glue
functions     lambdas/ → one zip a function
release       all of it in one folder, with manifest.json; `movement deploy` uploads that folder
archives      tar and zip files that know no clock, no user and no order of a file system
"""
