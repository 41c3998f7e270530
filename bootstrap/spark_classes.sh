#!/usr/bin/env bash
# Writes Java's archive of the classes that Spark loads (.venv/spark-classes.jsa, 220 MB). With it, the tests' Spark
# processes start in half the time; tests/conftest.py uses it. Never fails: without it the tests are only slower. An
# empty file says that there is none, so that the next `make test` does not try again.
# Source: https://docs.oracle.com/en/java/javase/17/vm/class-data-sharing.html
set -uo pipefail

archive=.venv/spark-classes.jsa
draft=$PWD/$archive.draft
echo "Archiving Spark's classes for the tests, once (one or two minutes)"
rm -f "$draft" "$archive"
if SPARK_SUBMIT_OPTS="$(.venv/bin/python -m tests.helpers.jvm_options) -XX:ArchiveClassesAtExit=$draft" \
    timeout 300 .venv/bin/python -m pytest -q -p no:cacheprovider \
    tests/jobs/stream/test_job.py::test_a_restarted_job_continues_where_it_ended \
    tests/jobs/gold/test_job.py::test_a_deleted_table_is_computed_again_and_the_others_stay >/dev/null 2>&1; then
    # The JVM writes the archive after the tests' process has ended. It is complete once it grows no more.
    size=0
    for _ in $(seq 60); do
        sleep 2
        before=$size
        size=$({ wc -c <"$draft"; } 2>/dev/null || echo 0)
        [ "$size" -gt 0 ] && [ "$size" = "$before" ] && break
    done
fi
if [ -s "$draft" ]; then
    mv "$draft" "$archive"
else
    echo "note: no archive of Spark's classes; the tests are slower"
    : >"$archive"
fi
exit 0
