"""The storage of the registry: its credentials, its configuration, and the error if it can't be used."""

import json
from pathlib import Path

import pytest

from swarmer.errors import SwarmerError
from swarmer.node.registry.bucket import reason
from swarmer.seed import registry_s3
from swarmer.spec import Registry, Spec

S3 = {"storage": "s3", "bucket": "images", "region": "eu-west-1"}


def spec(**registry: str) -> Spec:
    server = {"name": "one", "memory": 512, "cpus": 1, "ip": "10.0.0.2", "consul": "server", "swarm": "both"}
    document = {"admin_network": "10.0.0.0/24", "stack": "nspawn", "dc": "dev", "servers": [server]}
    return Spec.model_validate(document | {"registry": registry})


def test_the_default_storage_is_the_filesystem() -> None:
    assert spec().registry == Registry(storage="filesystem")
    assert spec(**S3).registry.bucket == "images"


@pytest.mark.parametrize(
    ("registry", "message"),
    [
        ({"storage": "s3", "bucket": "images"}, "region of the registry is missing"),
        ({"storage": "s3", "region": "eu-west-1"}, "bucket of the registry is missing"),
        ({"bucket": "images"}, "bucket of the registry requires"),
        ({"storage": "s4"}, "filesystem"),
        (S3 | {"bucket": "No Bucket"}, "pattern"),
        (S3 | {"endpoint": "ftp://x"}, "pattern"),
    ],
)
def test_invalid_settings_are_refused(registry: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spec(**registry)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = KEY\naws_secret_access_key = a/b+c%d=\n[other]\nx = y\n")
    file.chmod(0o600)
    return file


def test_credentials_are_read_from_the_file_unchanged(file: Path) -> None:
    found = registry_s3.environment(spec(**S3, credentials=str(file)).registry)
    assert found == {"AWS_ACCESS_KEY_ID": "KEY", "AWS_SECRET_ACCESS_KEY": "a/b+c%d="}


def test_without_a_file_the_instance_role_is_used() -> None:
    assert registry_s3.environment(spec(**S3).registry) == {}


def test_a_file_that_other_users_can_read_is_refused(file: Path) -> None:
    file.chmod(0o640)
    with pytest.raises(SwarmerError, match=r"(?s)other users can read .*chmod 600"):
        registry_s3.environment(spec(**S3, credentials=str(file)).registry)


@pytest.mark.parametrize("content", ["", "secret", "[default]\naws_access_key_id = secret\n", "[default\nsecret"])
def test_a_file_in_another_format_is_reported_without_its_content(file: Path, content: str) -> None:
    file.write_text(content)
    with pytest.raises(SwarmerError) as told:
        registry_s3.environment(spec(**S3, credentials=str(file)).registry)
    assert "aws_access_key_id" in str(told.value)
    assert told.value.__suppress_context__
    assert "secret\n" not in str(told.value)


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SwarmerError, match="can't be read"):
        registry_s3.environment(spec(**S3, credentials=str(tmp_path / "none")).registry)


def test_the_configuration_has_the_bucket_and_no_secret(file: Path) -> None:
    registry = spec(**S3, endpoint="http://10.0.0.1:9000", credentials=str(file)).registry
    document = json.loads(registry_s3.configuration(registry))
    assert document["storage"]["s3"] == {
        "bucket": "images",
        "region": "eu-west-1",
        "rootdirectory": "/",
        "regionendpoint": "http://10.0.0.1:9000",
        "secure": False,
    }
    assert "filesystem" not in document["storage"]
    assert document["http"]["net"] == "unix"
    assert "KEY" not in json.dumps(document)


def test_the_reason_is_the_last_error_in_the_journal() -> None:
    line = r'level=error msg="x" err.code=unknown err.detail="s3aws: {}\n\tstatus code: 403, request id: j4, host" z=1'
    journal = "\n".join([line.format("Old."), "Started.", line.format("SignatureDoesNotMatch: why.")])
    assert reason(journal) == "s3aws: SignatureDoesNotMatch: why. status code: 403"
    assert reason(line.format(r"A \"b\" c")) == 's3aws: A "b" c status code: 403'
    assert reason("nothing of that kind") == ""
