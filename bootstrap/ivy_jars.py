"""Adds Maven artifacts and their dependencies to this Python's Spark: `ivy_jars.py CACHE GROUP:ARTIFACT:VERSION…`

For `make test-spark`, where each Spark needs its own versions. `make setup` uses `spark_jars.py`, which checks
checksums. A jar that pyspark has already, in any version, is not replaced.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pyspark
from pyspark.sql import SparkSession

# The whole AWS SDK (558 MB), and other clouds.
EXCLUDED = "software.amazon.awssdk:bundle,org.apache.hadoop:hadoop-cloud-storage"
_SETTINGS = """<ivysettings>
  <settings defaultResolver="central"/>
  <resolvers><ibiblio name="central" m2compatible="true"/></resolvers>
</ivysettings>"""


def base_name(jar: Path) -> str:
    """A jar's name without its version."""
    return re.sub(r"-\d[^/]*\.jar$", "", jar.name)


def main() -> None:
    cache, *wanted = sys.argv[1:]
    folder = Path(cache).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "settings.xml"
    settings.write_text(_SETTINGS, encoding="utf-8")
    builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.jars.ivy", str(folder)).config("spark.jars.ivySettings", str(settings))
    builder.config("spark.jars.packages", ",".join(wanted)).config("spark.jars.excludes", EXCLUDED).getOrCreate().stop()
    jars = Path(pyspark.__file__).parent / "jars"
    there = {base_name(jar) for jar in jars.glob("*.jar")}
    for jar in sorted((folder / "jars").glob("*.jar")):
        name = jar.name.partition("_")[2]  # Ivy's file names start with the group
        if base_name(Path(name)) not in there:
            shutil.copy(jar, jars / name)


if __name__ == "__main__":
    main()
