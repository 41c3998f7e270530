"""Spark's JVM as a process: how it starts and ends, what its signals do, and which certificates it trusts."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark import SparkConf, SparkContext
from pyspark.java_gateway import ensure_callback_server_started, launch_gateway

log = logging.getLogger(__name__)

_TRUST_STORE = "javax.net.ssl.trustStore"
_starting = threading.Event()


def _ignore_sigterm_in_the_jvm() -> None:
    if _starting.is_set():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


# PySpark sets `preexec_fn` itself, so that a caller cannot; this runs in the same place, between fork and exec.
os.register_at_fork(after_in_child=_ignore_sigterm_in_the_jvm)


def start_jvm(conf: Mapping[str, str], log_file: str | None) -> None:
    """Starts the JVM with these Spark settings, unless this process has one. `log_file` takes its output.

    The JVM ignores SIGTERM, as PySpark's JVMs ignore Ctrl-C: a signal to the whole process group, or to a service's
    control group, leaves the JVM running until the current batch is done. It ends with this process, whose end closes
    its standard input.
    """
    if SparkContext._gateway is not None or "PYSPARK_GATEWAY_PORT" in os.environ:
        return
    with ExitStack() as opened:
        output: dict[str, Any] = {}
        if log_file is not None:
            Path(log_file).parent.mkdir(parents=True, exist_ok=True)
            log = opened.enter_context(Path(log_file).open("ab"))
            output = {"stdout": log, "stderr": log}
        _starting.set()
        try:
            gateway: Any = launch_gateway(SparkConf().setAll(list(conf.items())), output)  # type: ignore[no-untyped-call]
        finally:
            _starting.clear()
    SparkContext._ensure_initialized(gateway=gateway)


class _SetsEvent:
    """`sun.misc.SignalHandler` in Python: a signal to the JVM sets an event of this process."""

    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def handle(self, _signal: object) -> None:
        self._event.set()

    class Java:
        implements = ("sun.misc.SignalHandler",)


def stop_on_jvm_signals(stop: threading.Event) -> None:
    """SIGTERM and SIGINT to the JVM set `stop` instead of ending the JVM in the middle of a batch.

    Under spark-submit the JVM is the parent of this process: `kill`, YARN and Kubernetes signal the JVM alone.
    """
    SparkContext._ensure_initialized()
    gateway: Any = SparkContext._gateway
    try:
        ensure_callback_server_started(gateway)  # type: ignore[no-untyped-call]
        jvm, handler = gateway.jvm, _SetsEvent(stop)
        for name in ("TERM", "INT"):
            jvm.sun.misc.Signal.handle(jvm.sun.misc.Signal(name), handler)
    except Py4JJavaError as error:  # a JVM with -Xrs has no signals
        log.warning("SIGTERM to spark-submit will end the job within a batch: %s", error.java_exception)


def trust_certificates(gateway: Any, bundle: str) -> None:
    """Has the gateway's JVM trust the certificates of a PEM file, and no others, as boto3 does with AWS_CA_BUNDLE.

    S3A takes them from Java's trust store, which cannot be a PEM file. A trust store that the user has set is kept.
    """
    java = gateway.jvm.java
    if java.lang.System.getProperty(_TRUST_STORE) is not None:
        return
    password = gateway.new_array(gateway.jvm.char, 8)
    for index, letter in enumerate("changeit"):
        password[index] = letter
    store = java.security.KeyStore.getInstance("PKCS12")
    store.load(None, None)
    factory = java.security.cert.CertificateFactory.getInstance("X.509")
    for number, certificate in enumerate(factory.generateCertificates(java.io.FileInputStream(bundle))):
        store.setCertificateEntry(str(number), certificate)
    with NamedTemporaryFile(prefix="movement-trust-", suffix=".p12", delete=False) as file:
        output = java.io.FileOutputStream(file.name)
        store.store(output, password)
        output.close()
    java.io.File(file.name).deleteOnExit()
    java.lang.System.setProperty(_TRUST_STORE + "Type", "PKCS12")
    java.lang.System.setProperty(_TRUST_STORE + "Password", "changeit")
    java.lang.System.setProperty(_TRUST_STORE, file.name)
