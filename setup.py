"""Packaging. `make setup` installs this in development mode with every extra, pinned by requirements.lock."""

from pathlib import Path

from setuptools import find_namespace_packages, setup

EXTRAS = {
    # KPL-aggregated records: the library that AWS keeps.
    "kpl": ["aws_kinesis_agg>=1.2.3", "protobuf>=5", "six>=1.16"],
    # `movement serve`.
    "api": ["fastapi>=0.115", "prometheus-client>=0.21", "uvicorn[standard]>=0.32"],
    # The embedded AWS of a laptop and of the tests.
    "local": ["moto[events,glue,s3]==5.2.5", "flask>=3", "flask-cors>=5"],
    # `movement package`: versions and markers of the lock.
    "package": ["packaging>=24"],
    # Spark itself: EMR and Glue bring their own.
    "spark": ["pyspark==4.1.1", "delta-spark==4.2.0"],
    "dev": [
        "cfn-lint==1.58.0",
        "chispa>=0.11",
        "httpx>=0.27",
        "hypothesis>=6",
        "mypy>=1.18",
        "orjson>=3.10",  # the benchmarks' rival
        "pytest>=8",
        "pytest-xdist>=3.8",  # two files of tests at a time: most of their time is waiting
        "ruff>=0.14",
        "schemathesis==4.32.5",  # whether /openapi.json is true
        "selenium==4.48.0",  # drives Chromium in the page's tests
        "sqlglot==30.30.0",  # what it takes for Redshift's SQL changes between versions
        # Types for mypy.
        "botocore-stubs",
        "types-boto3[cloudformation,cloudwatch,events,glue,kinesis,s3,sqs,sts]",
        "types-PyYAML",
    ],
}

setup(
    name="movement-lake",
    version="0.1.0",
    description="Kinesis to a queryable lake with Spark Structured Streaming: nothing lost, nothing doubled",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.11",
    packages=find_namespace_packages(
        include=["spark_kinesis*", "jobs*", "producer*", "lambdas*", "local*", "movement*", "conf"]
    ),
    package_data={
        "conf": ["*.yaml", "examples/*.yaml", "examples/*/*"],
        "movement.report": ["assets/*"],
        "movement.cost": ["*.yaml"],
        "movement.doctor": ["*.yaml"],
    },
    install_requires=[
        "boto3>=1.40",
        "deltalake>=1.6",  # the page reads Delta without Spark
        "isal>=1.7",  # gzip at a fifth of zlib's processor time
        "msgspec>=0.19",
        "numpy>=1.26",
        "pyarrow>=20",  # extract_regex_span
        "pandas>=2.2,<3",  # Spark asks for it before it lets Arrow batches through
        "pydantic>=2.10",
        "pyyaml>=6",
        "rich>=14",
        "tenacity>=9",
        "typer>=0.16",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["movement=movement.cli.main:main"]},
)
