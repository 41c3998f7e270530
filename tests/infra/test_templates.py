"""The templates: cfn-lint finds nothing, and what cfn-lint does not check is correct."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from cfnlint.api import ManualArgs, lint_by_config

from jobs.schema.table import load_contract
from jobs.settings.settings import Settings, load_settings
from movement.deploy.stack import STANDALONE
from tests.helpers.paths import ROOT
from tests.helpers.policies import ROOT_PARAMETERS, policies
from tests.helpers.templates import FOLDER, NAMES, NESTED, PSEUDO, Stack, load, references, template_of

DOCS = ROOT / "docs"
EMR_RELEASES = {"emr-spark-8.1.0"}
GLUE_VERSIONS = {"6.0"}
# Resources whose data must survive the deletion of their stack.
RETAINED = {"AWS::S3::Bucket", "AWS::Kinesis::Stream", "AWS::KMS::Key", "AWS::Glue::Database"}
# The services that are documented to send aws:SourceAccount, with the page. A condition on a key that a service does
# not send is never true: the role cannot be assumed, and the queue or bucket refuses the service.
SEND_SOURCE_ACCOUNT = {
    "elasticmapreduce": "https://docs.aws.amazon.com/emr/latest/ManagementGuide/emr-iam-role.html",
    "emr-serverless": "https://docs.aws.amazon.com/emr/latest/EMR-Serverless-UserGuide/security-iam-runtime-role.html",
    "firehose": "https://docs.aws.amazon.com/firehose/latest/dev/controlling-access.html",
    "logging.s3": "https://docs.aws.amazon.com/AmazonS3/latest/userguide/enable-server-access-logging.html",
    "s3": "https://docs.aws.amazon.com/AmazonS3/latest/userguide/grant-destinations-permissions-to-s3.html",
}
EXTRAS = ("BatchPath", "Api", "LakeFormation")
every_template = pytest.mark.parametrize("name", NAMES)


def resources(*types: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(template.logical, resource) of all templates, optionally only of these types."""
    for name in NAMES:
        for logical, resource in load(name)["Resources"].items():
            if not types or resource["Type"] in types:
                yield f"{name}.{logical}", resource


def whole_stacks() -> Iterator[Stack]:
    """Every template with the root's parameters, for each value of `Streaming`."""
    for streaming in ("glue", "emr-serverless", "emr", "none"):
        for extras in ("yes", "no"):
            root = Stack("root", {**ROOT_PARAMETERS, "Streaming": streaming, **dict.fromkeys(EXTRAS, extras)})
            yield root
            for logical, resource in root.template["Resources"].items():
                if resource["Type"] == NESTED and root.condition(resource.get("Condition", "Always")):
                    yield root.nested(logical)
    yield Stack("artifacts", {"BucketName": "some-artifacts"})


def test_cfn_lint_finds_nothing() -> None:
    files = [str(FOLDER / f"{name}.yaml") for name in NAMES]
    matches = lint_by_config(ManualArgs(templates=files, regions=["us-east-1"]))
    assert [str(match) for match in matches] == []


@every_template
def test_every_reference_resolves_and_every_parameter_and_condition_is_used(name: str) -> None:
    template = load(name)
    known = PSEUDO.keys() | template.get("Parameters", {}).keys() | template["Resources"].keys()
    body = {key: template[key] for key in ("Conditions", "Resources", "Outputs") if key in template}
    used = {reference for reference, _ in references(body)}
    assert used - known == set()
    assert template.get("Parameters", {}).keys() - used == set()
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    for condition in template.get("Conditions", {}):
        assert len(re.findall(rf"\b{condition}\b", text)) > 1, f"condition {condition} is not used"


def test_the_root_passes_exactly_the_parameters_of_each_template() -> None:
    nested = {logical: each for logical, each in load("root")["Resources"].items() if each["Type"] == NESTED}
    assert {template_of(each) for each in nested.values()} | {"root"} | STANDALONE == set(NAMES)
    for each in nested.values():
        assert each["Properties"]["Parameters"].keys() == load(template_of(each))["Parameters"].keys(), template_of(
            each
        )


def test_a_parameter_that_is_fed_by_another_stacks_output_has_no_pattern() -> None:
    """A change set checks the pattern before the output exists, and fails (cloudformation-coverage-roadmap #759)."""
    fed = 0
    for each in load("root")["Resources"].values():
        for parameter, value in each["Properties"]["Parameters"].items():
            if any(attribute for _, attribute in references({"v": value})):
                fed += 1
                spec = load(template_of(each))["Parameters"][parameter]
                assert spec.keys() <= {"Type", "Description"}, f"{template_of(each)}.{parameter}"
                assert spec["Type"] in ("String", "CommaDelimitedList"), f"{template_of(each)}.{parameter}"
    assert fed > 20


def test_every_output_exists_and_is_used() -> None:
    root = load("root")
    used = {
        (template_of(root["Resources"][name]), attribute.removeprefix("Outputs."))
        for name, attribute in references({"r": root["Resources"], "o": root["Outputs"]})
        if attribute and attribute.startswith("Outputs.")
    }
    there = {
        (name, output)
        for name in NAMES
        if name not in {"root"} | STANDALONE
        for output in load(name).get("Outputs", {})
    }
    assert used - there == set()
    assert there - used == set()


def test_every_combination_of_choices_resolves() -> None:
    seen = set()
    for stack in whole_stacks():
        seen.add(stack.name)
        for logical, resource in stack.template["Resources"].items():
            if stack.condition(resource.get("Condition", "Always")) and resource["Type"] != NESTED:
                assert "${" not in str(stack.properties(logical)).replace("${!", "")
    assert seen == set(NAMES)


def test_what_the_root_passes_fits_patterns_ranges_and_allowed_values() -> None:
    for stack in whole_stacks():
        for name, spec in stack.template.get("Parameters", {}).items():
            value, what = stack.parameters[name], f"{stack.name}.{name}"
            if "AllowedValues" in spec:
                assert str(value) in map(str, spec["AllowedValues"]), what
            if "AllowedPattern" in spec:
                assert re.search(spec["AllowedPattern"], str(value)), f"{what}: {value}"
            if spec["Type"] == "Number":
                assert spec.get("MinValue", 0) <= float(value) <= spec.get("MaxValue", float("inf")), what


def test_parameters_have_a_description_and_the_roots_texts_a_pattern() -> None:
    for name in NAMES:
        for parameter, spec in load(name).get("Parameters", {}).items():
            assert spec.get("Description"), f"{name}.{parameter}"
            if name == "root" and spec["Type"] == "String":
                assert spec.keys() & {"AllowedPattern", "AllowedValues"}, parameter


def test_only_services_that_send_their_account_are_asked_for_it() -> None:
    checked = set()
    for name, resource in resources():
        for document in ("AssumeRolePolicyDocument", "PolicyDocument", "KeyPolicy"):
            for part in resource.get("Properties", {}).get(document, {}).get("Statement", []):
                principal = part.get("Principal")
                keys = {key for operator in part.get("Condition", {}).values() for key in operator}
                if isinstance(principal, dict) and "Service" in principal and "aws:SourceAccount" in keys:
                    service = str(principal["Service"]).removesuffix(".amazonaws.com")
                    assert service in SEND_SOURCE_ACCOUNT, f"{name}: no page says that {service} sends it"
                    checked.add(service)
    assert checked == SEND_SOURCE_ACCOUNT.keys()


@every_template
def test_no_account_region_or_partition_is_written_out(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert re.findall(r"\barn:aws[a-z-]*:", text) == []
    assert re.findall(r"\b[0-9]{12}\b", text) == []
    assert re.findall(r"\b(?:us|eu|ap|sa|ca|me|af|cn)-[a-z]+-[0-9]\b", text) == []
    assert re.findall(
        r"\$\{AWS::URLSuffix\}|amazonaws\.com\b", re.sub(r"(?m)^ .*(Service: |ViaService: ).*$", "", text)
    ) in (
        [],
        ["${AWS::URLSuffix}"] * text.count("${AWS::URLSuffix}"),
    )


def test_releases_are_ones_that_this_project_is_tested_on() -> None:
    found = 0
    for stack in whole_stacks():
        for logical, resource in stack.template["Resources"].items():
            properties = stack.properties(logical) if resource["Type"] != NESTED else {}
            if "ReleaseLabel" in properties:
                found += 1
                assert properties["ReleaseLabel"] in EMR_RELEASES, f"{stack.name}.{logical}"
            if resource["Type"] == "AWS::Glue::Job":
                found += 1
                assert properties["GlueVersion"] in GLUE_VERSIONS, f"{stack.name}.{logical}"
    assert found >= 4


def test_names_are_the_settings_defaults_and_the_originals() -> None:
    defaults = {name: spec.get("Default") for name, spec in load("root")["Parameters"].items()}
    settings = Settings()

    assert defaults["StreamName"] == settings.stream.name == "uber-movement-stream"
    assert defaults["CrawlerName"] == "uber-movement-crawler-raw"
    assert defaults["BatchJobName"] == "uber-gluejob"
    assert defaults["Database"] == settings.database
    assert defaults["ShardCount"] == settings.stream.shards
    assert settings.lake.endswith(f"/{defaults['LakePrefix']}")


def test_the_jobs_get_the_settings_of_the_stack() -> None:
    root = Stack("root", {**ROOT_PARAMETERS, "Streaming": "glue"})
    for stack, logical in (("Batch", "BatchJob"), ("GlueStreaming", "Job")):
        properties = root.nested(stack).properties(logical)
        arguments = properties["DefaultArguments"]
        passed = json.loads(arguments["--set"])
        settings = load_settings(arguments["--config"], [f"{key}={value}" for key, value in passed.items()])
        assert (settings.lake, settings.database) == ("s3://a-lake/lake", "uber_movement")
        assert settings.stream.name == root.parameters["StreamName"]
        script = properties["Command"]["ScriptLocation"].rpartition(f"{ROOT_PARAMETERS['Release']}/")[2]
        assert (FOLDER.parents[1] / script).is_file()
    assert root.nested("GlueStreaming").properties("Job")["Command"]["Name"] == "gluestreaming"
    # Below seven days Glue ends a streaming job instead of restarting it.
    assert root.nested("GlueStreaming").properties("Job")["Timeout"] == 10080


def emr(**parameters: str) -> dict[str, Any]:
    """The cluster's properties."""
    return Stack("root", {**ROOT_PARAMETERS, "Streaming": "emr", **parameters}).nested("Emr").properties("Cluster")


def test_yarns_shuffle_service_authenticates_as_the_executors_do() -> None:
    # A service without it answers "Unknown message type: -22" to each executor (docs/adr/0024).
    found = {each["Classification"]: each["ConfigurationProperties"] for each in emr()["Configurations"]}

    assert found["spark-defaults"]["spark.authenticate"] == "true" == found["yarn-site"]["spark.authenticate"]
    assert found["spark-defaults"]["spark.network.crypto.enabled"] == "true"
    attempts = str(Settings().deploy.emr.driver_attempts)
    assert found["yarn-site"]["yarn.resourcemanager.am.max-attempts"] == attempts, "YARN caps what the job asks for"


def test_a_cluster_runs_other_steps_beside_the_jobs() -> None:
    assert emr()["StepConcurrencyLevel"] > 1, "the step that kills the job would wait for the job's step"


def test_no_stack_holds_an_endless_job() -> None:
    assert list(resources("AWS::EMR::Step")) == []


def test_a_new_release_replaces_no_cluster_unless_its_nodes_are_bootstrapped() -> None:
    # BootstrapActions is a property whose change replaces the cluster.
    assert emr() == emr(Release="movement/0.2.0-aaaaaaaa")

    (action,) = emr(ManifestSha256="a" * 64)["BootstrapActions"]
    script = action["ScriptBootstrapAction"]
    folder = f"s3://some-artifacts/{ROOT_PARAMETERS['Release']}"
    assert script == {
        "Path": f"{folder}/emr-bootstrap.sh",
        "Args": ["--region", PSEUDO["AWS::Region"], folder, "a" * 64],
    }


def test_the_crawler_makes_one_table_whatever_the_schemas() -> None:
    configuration = json.loads(Stack("root", ROOT_PARAMETERS).nested("Catalog").properties("Crawler")["Configuration"])

    assert configuration["Grouping"] == {"TableGroupingPolicy": "CombineCompatibleSchemas"}


def test_a_user_can_afford_the_crawls_and_no_message_gives_up_while_it_waits_for_one() -> None:
    root = Stack("root", ROOT_PARAMETERS)
    seconds = float(
        root.nested("Batch").properties("CrawlerTrigger")["Environment"]["Variables"]["CRAWL_INTERVAL_SECONDS"]
    )
    # 0.44 $ a DPU-hour, 2 DPU, 10 minutes at least: docs/adr/0024.
    assert 86_400 / seconds * 2 / 6 * 0.44 < 4, "dollars a day"
    assert root.nested("Delivery").parameters["BufferSeconds"] == 900

    longest = load("root")["Parameters"]["CrawlSeconds"]["MaxValue"]
    queue = root.nested("Storage").properties("DeliveryQueue")
    tries = int(queue["VisibilityTimeout"]) * queue["RedrivePolicy"]["maxReceiveCount"] / longest
    assert tries >= 3


@pytest.mark.parametrize("name", ["emr.yaml", "glue.yaml"])
def test_a_batch_after_a_stop_is_capped_by_time_which_reads_no_shard_twice(name: str) -> None:
    source = load_settings(name, []).source

    # 72 h of a full shard would be 259 GB. Minutes of it, and less than the 15 minutes of the alarm on no progress.
    assert 0 < source.max_seconds_per_batch <= 600
    # A cap in records or bytes is counted: the planner reads the shard, the job does, and Firehose does: 3 MB/s of 2.
    assert (source.max_records_per_batch, source.max_bytes_per_batch) == (0, 0)


def test_every_job_on_glue_has_log_groups_with_a_key_and_an_end_and_a_security_configuration() -> None:
    root = Stack("root", {**ROOT_PARAMETERS, "Streaming": "glue", "LogDays": "60"})
    for stack, logical in (("Batch", "BatchJob"), ("GlueStreaming", "Job")):
        nested = root.nested(stack)
        job = nested.properties(logical)
        prefix = job["DefaultArguments"]["--custom-logGroup-prefix"]
        groups = [nested.properties(each) for each in ("ErrorLog", "OutputLog")]
        assert [each["LogGroupName"] for each in groups] == [f"{prefix}/error", f"{prefix}/output"]
        assert all(each["KmsKeyId"] and each["RetentionInDays"] == "60" for each in groups)
        assert job["SecurityConfiguration"] == nested.value({"Ref": "Security"})
        encryption = nested.properties("Security")["EncryptionConfiguration"]
        # Otherwise Glue names the groups, in a way that is not documented, and nothing ends what they hold.
        assert encryption["CloudWatchEncryption"] == {"CloudWatchEncryptionMode": "DISABLED"}
        assert encryption["S3Encryptions"][0]["S3EncryptionMode"] == "SSE-KMS"


def test_every_log_group_has_a_key_and_an_end() -> None:
    for name, group in resources("AWS::Logs::LogGroup"):
        assert group["Properties"].keys() >= {"KmsKeyId", "RetentionInDays"}, name


def test_emr_serverless_asks_for_no_key_that_the_jobs_role_would_have_to_associate() -> None:
    root = Stack("root", {**ROOT_PARAMETERS, "Streaming": "emr-serverless"})
    monitoring = root.nested("EmrServerless").properties("Application")["MonitoringConfiguration"]
    allowed = {
        action for each in policies(Streaming="emr-serverless")["emr-serverless.Role"] for action in each.actions
    }

    asks = "EncryptionKeyArn" in monitoring["CloudWatchLoggingConfiguration"]
    assert not asks or "logs:AssociateKmsKey" in allowed
    assert root.nested("EmrServerless").properties("Log")["KmsKeyId"], "the group has its key by itself"


def test_data_outlives_its_stack() -> None:
    found = list(resources(*RETAINED))
    assert len(found) == 7
    for name, resource in found:
        # A failed first stack must leave nothing: its names would be taken, and the next attempt would fail.
        assert resource.get("DeletionPolicy") == "RetainExceptOnCreate", name
        assert resource.get("UpdateReplacePolicy") == "Retain", name


def test_resources_with_records_are_encrypted_and_require_tls() -> None:
    for name, bucket in resources("AWS::S3::Bucket"):
        properties = bucket["Properties"]
        assert properties["BucketEncryption"]["ServerSideEncryptionConfiguration"], name
        assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}, name
        assert len(properties["PublicAccessBlockConfiguration"]) == 4, name
        aborted = [
            rule for rule in properties["LifecycleConfiguration"]["Rules"] if "AbortIncompleteMultipartUpload" in rule
        ]
        assert aborted, name
    for name, stream in resources("AWS::Kinesis::Stream"):
        assert stream["Properties"]["StreamEncryption"]["EncryptionType"] == "KMS", name
    for name, queue in resources("AWS::SQS::Queue"):
        assert queue["Properties"]["SqsManagedSseEnabled"] is True, name
    for kind, policy_kind, covered_by in (
        ("AWS::S3::Bucket", "AWS::S3::BucketPolicy", lambda properties: [properties["Bucket"]]),
        ("AWS::SQS::Queue", "AWS::SQS::QueuePolicy", lambda properties: properties["Queues"]),
    ):
        covered = set()
        for name, policy in resources(policy_kind):
            tls = [part for part in policy["Properties"]["PolicyDocument"]["Statement"] if part["Sid"] == "TlsOnly"]
            assert [part["Effect"] for part in tls] == ["Deny"], name
            assert tls[0]["Condition"] == {"Bool": {"aws:SecureTransport": False}}, name
            covered |= {f"{name.partition('.')[0]}.{thing['Ref']}" for thing in covered_by(policy["Properties"])}
        assert covered == {name for name, _ in resources(kind)}


def test_the_lakes_bucket_is_made_after_what_s3_checks_when_it_is_made() -> None:
    storage = load("storage")["Resources"]
    before = storage["Bucket"]["DependsOn"]
    assert {storage[name]["Type"] for name in before} == {"AWS::SQS::QueuePolicy", "AWS::S3::BucketPolicy"}
    covered = [storage[name]["Properties"].get("Bucket") for name in before]
    assert storage["Bucket"]["Properties"]["LoggingConfiguration"]["DestinationBucketName"] in covered


def test_the_longest_name_of_the_lakes_bucket_leaves_room_for_its_log_bucket() -> None:
    for length in range(3, 64):
        name = "b" * length
        allowed = re.search(load("root")["Parameters"]["BucketName"]["AllowedPattern"], name)
        log_bucket = Stack("root", {**ROOT_PARAMETERS, "BucketName": name}).nested("Storage").properties("LogBucket")
        assert bool(allowed) == (len(log_bucket["BucketName"]) <= 63), length


def test_old_versions_of_leases_and_logs_of_clusters_expire() -> None:
    storage = Stack("root", {**ROOT_PARAMETERS, "LogDays": 14}).nested("Storage")
    rules = {rule["Id"]: rule for rule in storage.properties("Bucket")["LifecycleConfiguration"]["Rules"]}
    assert rules["old-leases"]["Prefix"] == "lake/_claims/"
    assert rules["old-leases"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 1}
    log_uri = Stack("root", {**ROOT_PARAMETERS, "Streaming": "emr"}).nested("Emr").properties("Cluster")["LogUri"]
    assert log_uri.startswith(f"s3://a-lake/{rules['cluster-logs']['Prefix']}")
    assert rules["cluster-logs"]["ExpirationInDays"] == 14
    assert not "lake/".startswith(rules["cluster-logs"]["Prefix"]), "the lake is not a log"


def statements(stack: Stack) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(resource, statement) of the roles and managed policies of a stack."""
    for logical, resource in stack.template["Resources"].items():
        if resource["Type"] in ("AWS::IAM::Role", "AWS::IAM::ManagedPolicy"):
            properties = stack.properties(logical)
            documents = [each["PolicyDocument"] for each in properties.get("Policies", [])]
            for document in [*documents, properties.get("PolicyDocument", {"Statement": []})]:
                for part in document["Statement"]:
                    yield f"{stack.name}.{logical}", part


def test_a_role_may_not_touch_a_bucket_of_another_account() -> None:
    """A bucket that was deleted may belong to somebody else by now, under the same name."""
    checked = 0
    for stack in whole_stacks():
        for name, part in statements(stack):
            actions = part["Action"] if isinstance(part["Action"], list) else [part["Action"]]
            if any(action.startswith("s3:") for action in actions):
                checked += 1
                condition = part.get("Condition", {}).get("StringEquals", {})
                assert condition.get("aws:ResourceAccount") == PSEUDO["AWS::AccountId"], f"{name}.{part['Sid']}"
    assert checked > 20


def test_a_managed_policy_fits_into_iams_limit_with_long_names() -> None:
    """6,144 characters: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html"""
    names = {"BucketName": "b" * 59, "LakePrefix": "p" * 40, "Database": "d" * 40, "StreamName": "s" * 55}
    more = {"ArtifactsBucket": "a" * 63, "ReleasesPrefix": "r" * 40 + "/"}
    access = Stack("root", {**ROOT_PARAMETERS, **names, **more}).nested("Access")
    for logical in access.template["Resources"]:
        document = json.dumps(access.properties(logical)["PolicyDocument"], separators=(",", ":"))
        assert len(document) <= 6144, f"{logical}: {len(document)}"


def test_the_artifacts_buckets_own_key_is_allowed_to_the_jobs_if_there_is_one() -> None:
    def decrypting(**parameters: str) -> set[str]:
        access = Stack("root", {**ROOT_PARAMETERS, **parameters}).nested("Access")
        return {name for name, part in statements(access) if part["Sid"] == "DecryptTheRelease"}

    assert decrypting() == {"access.StreamJobPolicy", "access.BatchJobPolicy"}
    assert decrypting(ArtifactsKeyArn="") == set()


@pytest.mark.parametrize("streaming", ["glue", "emr-serverless", "emr"])
def test_with_lake_formation_each_role_that_keeps_tables_is_granted_them(streaming: str) -> None:
    root = Stack("root", {**ROOT_PARAMETERS, "Streaming": streaming, "LakeFormation": "yes"})
    grants = root.nested("LakeFormationGrants")
    granted: dict[str, set[str]] = {}
    for logical in grants.template["Resources"]:
        properties = grants.properties(logical)
        role = properties["Principal"]["DataLakePrincipalIdentifier"].rpartition("/")[2]
        granted.setdefault(role, set()).update(properties["Permissions"])
    roles = {"glue": "glue-streaming-Role", "emr-serverless": "emr-serverless-Role", "emr": "emr-NodeRole"}
    assert granted.keys() == {roles[streaming], "batch-BatchJobRole", "catalog-CrawlerRole"}
    for role, permissions in granted.items():
        assert permissions >= {"DESCRIBE", "CREATE_TABLE", "ALTER", "INSERT", "SELECT"}, role


@pytest.mark.parametrize("log_role", ["create", "existing"])
def test_the_api_logs_each_request_and_no_record(log_role: str) -> None:
    api = Stack("root", {**ROOT_PARAMETERS, "Api": "yes", "ApiLogRole": log_role}).nested("PostApi")
    setting = api.properties("Stage")["AccessLogSetting"]
    assert json.loads(setting["Format"]).keys() >= {"requestId", "ip", "status", "error"}
    assert "$input" not in setting["Format"]
    log = api.properties("AccessLog")
    assert setting["DestinationArn"].endswith(f"{log['LogGroupName']}:*")
    assert (log["RetentionInDays"], bool(log["KmsKeyId"])) == (30, True)
    # Without the account's role the stage cannot be created, so it is created after it.
    assert ("LogAccount" in api.properties("Stage")["Description"]) == (log_role == "create")


def test_a_message_stays_hidden_for_six_times_its_functions_timeout() -> None:
    root = Stack("root", ROOT_PARAMETERS)
    batch, storage = root.nested("Batch"), root.nested("Storage")
    timeouts = [int(batch.properties(name)["Timeout"]) for name in ("CrawlerTrigger", "GlueJobTrigger")]
    for hidden in (storage.properties("DeliveryQueue"), batch.properties("CrawlQueue")):
        # https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html: and the batching window.
        assert int(hidden["VisibilityTimeout"]) >= 6 * max(timeouts) + 30
        assert hidden["RedrivePolicy"]["maxReceiveCount"] > 1
    for name in ("CrawlerTriggerSource", "GlueJobTriggerSource"):
        source = batch.properties(name)
        assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert source["MaximumBatchingWindowInSeconds"] == 30


def test_the_functions_get_every_variable_that_they_read() -> None:
    batch = Stack("root", ROOT_PARAMETERS).nested("Batch")
    for logical, module in (("CrawlerTrigger", "crawler_trigger"), ("GlueJobTrigger", "gluejob_trigger")):
        properties = batch.properties(logical)
        source = (FOLDER.parents[1] / "lambdas" / f"{module}.py").read_text(encoding="utf-8")
        assert properties["Handler"] == f"lambdas.{module}.handler"
        asked = set(re.findall(r'required\("([A-Z_]+)"\)|environ\.get\("([A-Z_]+)"', source))
        assert {first or second for first, second in asked} <= properties["Environment"]["Variables"].keys()


def test_firehose_writes_a_record_a_line_where_the_notification_looks() -> None:
    root = Stack("root", ROOT_PARAMETERS)
    target = root.nested("Delivery").properties("DeliveryStream")["ExtendedS3DestinationConfiguration"]
    processors = target["ProcessingConfiguration"]["Processors"]
    assert processors == [
        {"Type": "AppendDelimiterToRecord", "Parameters": [{"ParameterName": "Delimiter", "ParameterValue": "\\n"}]}
    ]
    notification = root.nested("Storage").properties("Bucket")["NotificationConfiguration"]["QueueConfigurations"][0]
    watched = notification["Filter"]["S3Key"]["Rules"][0]["Value"]
    crawled = root.nested("Catalog").properties("Crawler")["Targets"]["S3Targets"][0]["Path"]
    environment = root.nested("Batch").properties("CrawlerTrigger")["Environment"]["Variables"]
    assert watched == "lake/delivery/" == environment["DELIVERY_PREFIX"]
    assert target["Prefix"].startswith(watched)
    assert not target["ErrorOutputPrefix"].startswith(watched), "what failed is no data"
    assert crawled == f"s3://a-lake/{watched}"


def test_the_api_requires_the_contracts_fields_and_keys_records_as_the_producer_does() -> None:
    contract = load_contract("travel_times.yaml")
    api = Stack("root", {**ROOT_PARAMETERS, "Api": "yes"}).nested("PostApi")
    assert api.properties("Record")["Schema"]["required"] == [c.source for c in contract.columns if c.required]
    method = api.properties("Post")
    template = method["Integration"]["RequestTemplates"]["application/json"]
    key = re.search(r'#set\(\$key = "(.*)"\)', template)
    assert key
    assert re.findall(r"get\('([^']+)'\)", key[1]) == list(contract.stream_partition_key)
    assert key[1].count("|") == len(contract.stream_partition_key) - 1
    assert '"StreamName": "uber-movement-stream"' in template
    assert (method["AuthorizationType"], method["ApiKeyRequired"]) == ("AWS_IAM", False)
    throttle = api.properties("Stage")["MethodSettings"][0]
    assert throttle["ThrottlingRateLimit"] > 0
    assert throttle["ThrottlingBurstLimit"] > 0


def test_the_api_does_not_ask_for_a_record_again_that_kinesis_will_never_take() -> None:
    """Kinesis answers 400 to a record that is too large as to throttling, so the answer's type decides."""
    integration = Stack("root", {**ROOT_PARAMETERS, "Api": "yes"}).nested("PostApi").properties("Post")["Integration"]
    (refused,) = [each for each in integration["IntegrationResponses"] if each.get("SelectionPattern")]
    template = refused["ResponseTemplates"]["application/json"]
    assert refused["StatusCode"] == "503"
    assert re.fullmatch(refused["SelectionPattern"], "400")
    large, other = re.search(r"(?s)#if\((.*?)#else(.*)#end", template).groups()  # type: ignore[union-attr]
    assert re.findall(r'\$type\.contains\("(\w+)"\)', large) == ["ValidationException", "InvalidArgumentException"]
    assert "#set($context.responseOverride.status = 413)" in large
    assert "may be sent again" not in large
    assert "responseOverride" not in other
    assert json.loads(other)["error"].endswith("may be sent again")


def test_every_alarm_names_its_line_in_the_runbook() -> None:
    found = list(resources("AWS::CloudWatch::Alarm"))
    assert len(found) >= 5
    for name, alarm in found:
        link = re.search(r"docs/([a-z]+)\.md#(alarm-[a-z-]+)$", alarm["Properties"]["AlarmDescription"])
        assert link, name
        page = DOCS / f"{link[1]}.md"
        heading = link[2].replace("-", " ")
        titles = [
            line.lstrip("# ").lower().replace(":", "") for line in page.read_text().splitlines() if line[:1] == "#"
        ]
        assert heading in titles or f'id="{link[2]}"' in page.read_text(), f"{name}: {link[0]}"


def own(name: str) -> list[Mapping[str, Any]]:
    """A template's resources."""
    return list(load(name)["Resources"].values())


def test_what_a_checker_is_told_to_skip_has_its_reason() -> None:
    found = 0
    for name, resource in resources():
        for skip in resource.get("Metadata", {}).get("checkov", {}).get("skip", []):
            found += 1
            assert len(skip["comment"]) > 20, f"{name}: {skip['id']}"
    for name in NAMES:
        text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
        suppressed = sum(len(e.get("Metadata", {}).get("guard", {}).get("SuppressedRules", [])) for e in own(name))
        with_reason = re.findall(r"(?m)^          - [A-Z0-9_]+ # .{20,}$", text)
        assert len(with_reason) == suppressed, name
        found += suppressed
    assert found > 40


def test_the_page_names_every_template_and_every_parameter_of_the_root() -> None:
    page = (DOCS / "cloudformation.md").read_text(encoding="utf-8")
    missing = [name for name in NAMES if f"`{name}.yaml`" not in page]
    missing += [name for name in load("root")["Parameters"] if f"`{name}`" not in page]
    assert missing == []


# AWS's limits of names that are made of a parameter, by the resource's property, with the page.
NAMES_ARE = {
    # https://docs.aws.amazon.com/firehose/latest/APIReference/API_CreateDeliveryStream.html
    ("AWS::KinesisFirehose::DeliveryStream", "DeliveryStreamName"): r"[a-zA-Z0-9_.-]{1,64}",
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutDashboard.html
    ("AWS::CloudWatch::Dashboard", "DashboardName"): r"[A-Za-z0-9_-]{1,255}",
    # https://docs.aws.amazon.com/glue/latest/dg/aws-glue-api-jobs-security.html
    ("AWS::Glue::SecurityConfiguration", "Name"): r".{1,255}",
    # https://docs.aws.amazon.com/kinesis/latest/APIReference/API_CreateStream.html
    ("AWS::Kinesis::Stream", "Name"): r"[a-zA-Z0-9_.-]{1,128}",
}


def test_the_longest_names_that_the_root_accepts_are_names_to_the_nested_stacks_and_to_aws() -> None:
    """Else a first stack fails half-way. The parameters' patterns end in `{1,N}$`."""
    longest = {}
    for name, spec in load("root")["Parameters"].items():
        found = re.fullmatch(r"\^\[[^]]+\]\{1,(\d+)\}\$", spec.get("AllowedPattern", ""))
        if found:
            longest[name] = "a" * int(found[1])
            assert "." not in spec["AllowedPattern"]
    assert longest.keys() >= {"StreamName", "BatchJobName", "StreamingJobName", "Database", "CrawlerName"}
    checked = set()
    for streaming in ("glue", "emr-serverless", "emr"):
        root = Stack("root", {**ROOT_PARAMETERS, **longest, "Streaming": streaming, "BatchPath": "yes", "Api": "yes"})
        for logical, resource in root.template["Resources"].items():
            if resource["Type"] != NESTED or not root.condition(resource.get("Condition", "Always")):
                continue
            stack = root.nested(logical)
            for name, value in stack.parameters.items():
                pattern = stack.template["Parameters"][name].get("AllowedPattern")
                assert pattern is None or re.fullmatch(pattern, str(value)), f"{stack.name}.{name}: {value}"
            for inner, each in stack.template["Resources"].items():
                for (kind, key), pattern in NAMES_ARE.items():
                    if each["Type"] == kind and key in each["Properties"]:
                        assert re.fullmatch(pattern, stack.properties(inner)[key]), f"{stack.name}.{inner}"
                        checked.add(kind)
    assert checked == {kind for kind, _ in NAMES_ARE}
