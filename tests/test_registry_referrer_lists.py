"""Lists of referrers."""

import json

from swarmer.node.registry import manifests, referrers
from swarmer.node.registry.manifests import OCI_INDEX, Document

A, B = (f"sha256:{letter * 64}" for letter in "ab")
SIGNATURE = Document(A, "image", 10, subject=B, artifact_type="text/signature", annotations={"by": "me"})
INDEX = Document(B, OCI_INDEX, 20, subject=B)
SIGNATURE_ENTRY = {
    "mediaType": "image",
    "digest": A,
    "size": 10,
    "artifactType": "text/signature",
    "annotations": {"by": "me"},
}


def test_an_entry_has_what_the_referrer_says_of_itself_and_no_more() -> None:
    body, more = referrers.page([SIGNATURE, INDEX], None)
    assert json.loads(body) == {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [SIGNATURE_ENTRY, {"mediaType": OCI_INDEX, "digest": B, "size": 20}],
    }
    assert more == ""


def test_only_one_type_is_listed_on_request() -> None:
    body, _ = referrers.page([SIGNATURE, INDEX], "text/signature")
    assert [entry["digest"] for entry in json.loads(body)["manifests"]] == [A]
    assert json.loads(referrers.page([SIGNATURE, INDEX], "other")[0])["manifests"] == []


def test_a_list_of_any_size_comes_in_pages_that_clients_read() -> None:
    large = {"text": "x" * 1_500_000}
    left = [Document(f"sha256:{number:064}", "image", 1, annotations=large) for number in range(5)]
    found: list[str] = []
    while left:
        body, last = referrers.page(left, None)
        assert len(body) <= manifests.LARGEST
        found += [entry["digest"] for entry in json.loads(body)["manifests"]]
        left = [each for each in left if each.digest > last] if last else []
    assert found == [f"sha256:{number:064}" for number in range(5)]


def test_the_tag_by_which_clients_keep_the_list_themselves() -> None:
    assert referrers.tag_of(A) == f"sha256-{'a' * 64}"
    assert referrers.tag_of(f"sha512:{'b' * 128}") == f"sha512-{'b' * 64}"
