"""Java's TLS trusts the CA of AWS_CA_BUNDLE, as boto3's does. In a bare JVM: Spark's would take a minute to start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyspark
import pytest
from py4j.java_gateway import JavaGateway
from py4j.protocol import Py4JJavaError

from jobs.common.java_process import trust_certificates
from local.server import RunningServer
from tests.helpers.private_ca import TlsProxy, make_certificate

pytestmark = pytest.mark.aws


@pytest.fixture
def gateway() -> Iterator[Any]:
    (jar,) = (Path(pyspark.__file__).parent / "jars").glob("py4j-*.jar")
    started = JavaGateway.launch_gateway(jarpath=str(jar), die_on_exit=True)
    yield started
    started.shutdown()


def test_java_trusts_the_certificates_of_the_ca_bundle(
    embedded_aws: RunningServer, gateway: Any, tmp_path: Path
) -> None:
    certificate = make_certificate(tmp_path)
    with TlsProxy(embedded_aws.endpoint, certificate) as proxy:
        url = gateway.jvm.java.net.URL(proxy.endpoint)
        with pytest.raises(Py4JJavaError, match="PKIX path building failed"):
            url.openConnection().getResponseCode()

        trust_certificates(gateway, str(certificate.certificate))

        context = gateway.jvm.javax.net.ssl.SSLContext.getInstance("TLS")  # a new one, as S3A makes it
        context.init(None, None, None)
        connection = url.openConnection()
        connection.setSSLSocketFactory(context.getSocketFactory())
        assert connection.getResponseCode() < 500


def test_a_trust_store_that_the_user_has_set_is_kept(gateway: Any, tmp_path: Path) -> None:
    gateway.jvm.java.lang.System.setProperty("javax.net.ssl.trustStore", "/mine.jks")
    trust_certificates(gateway, str(make_certificate(tmp_path).certificate))
    assert gateway.jvm.java.lang.System.getProperty("javax.net.ssl.trustStore") == "/mine.jks"
