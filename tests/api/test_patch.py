"""Patches on plain data, and objects printed as YAML."""

from typing import Any

import pytest

from k8snetlab import api
from k8snetlab.api.patch import patched
from k8snetlab.errors import ManifestError

POD: dict[str, Any] = {
    "spec": {
        "containers": [{"name": "a", "image": "x", "ports": [{"containerPort": 80}]}, {"name": "b"}],
        "tolerations": [{"key": "k"}],
    }
}


def spec(patch: dict[str, Any]) -> Any:
    """The spec of the pod after a patch of its spec."""
    return patched(POD, {"spec": patch})["spec"]


def test_containers_are_found_by_name() -> None:
    """One changes, the other stays, a third comes; ports inside are found by number."""
    found = spec({"containers": [{"name": "a", "image": "y", "ports": [{"containerPort": 81}]}, {"name": "c"}]})
    assert [each["name"] for each in found["containers"]] == ["a", "b", "c"]
    assert found["containers"][0] == {
        "name": "a",
        "image": "y",
        "ports": [{"containerPort": 80}, {"containerPort": 81}],
    }


def test_other_lists_are_replaced() -> None:
    """Tolerations have no key; neither have the ports of an EndpointSlice."""
    assert spec({"tolerations": [{"key": "other"}]})["tolerations"] == [{"key": "other"}]
    assert patched({"ports": [{"port": 80}]}, {"ports": [{"port": 81}]}) == {"ports": [{"port": 81}]}


def test_directives_take_away_and_begin_anew() -> None:
    """`$patch: delete` of an entry, `$patch: replace` of a list and of a mapping."""
    assert spec({"containers": [{"name": "a", "$patch": "delete"}]})["containers"] == [{"name": "b"}]
    assert spec({"containers": [{"$patch": "replace"}, {"name": "c"}]})["containers"] == [{"name": "c"}]
    assert patched(POD, {"spec": {"$patch": "replace", "nodeName": "n"}}) == {"spec": {"nodeName": "n"}}


def test_null_takes_a_field_away() -> None:
    """Also one that was not there."""
    assert spec({"containers": None, "nodeName": None}) == {"tolerations": [{"key": "k"}]}


def test_what_was_there_is_not_touched() -> None:
    """A patch gives new data; the old is as it was, after operations too."""
    before = repr(POD)
    patched(POD, [{"op": "remove", "path": "/spec/containers/0/ports"}])
    spec({"containers": [{"name": "a", "image": "z"}]})
    assert repr(POD) == before


def test_places_may_have_slashes_and_tildes() -> None:
    """`~1` is a slash, `~0` a tilde."""
    data = {"labels": {"a/b": "1", "c~d": "2"}}
    operations = [{"op": "remove", "path": "/labels/a~1b"}, {"op": "replace", "path": "/labels/c~0d", "value": "3"}]
    assert patched(data, operations) == {"labels": {"c~d": "3"}}


@pytest.mark.parametrize(
    "operations",
    [
        [{"op": "remove", "path": ""}],
        [{"op": "replace", "path": "", "value": 3}],
        [{"op": "add", "path": "/spec/containers/9", "value": {}}],
        [{"op": "add", "path": "/status/phase", "value": "Running"}],
        [{"op": "remove", "path": "/spec/containers/-"}],
        [{"op": "move", "from": "/nothing", "path": "/spec/nodeName"}],
        [{"op": "test", "path": "/spec/containers/0/name/x", "value": 1}],
        [{"op": "copy", "path": "/spec/x"}],
        [{}],
        "text",
    ],
)
def test_operations_that_do_not_work(operations: Any) -> None:
    """Each is refused by its place in the patch."""
    with pytest.raises(ManifestError) as caught:
        patched(POD, operations)
    assert caught.value.problems[0].field.startswith("patch")


@pytest.mark.parametrize(
    "text",
    ["", " ", "y", "no", "on", "true", "null", "~", "1", "1e3", "0x1f", "017", "80.0", "12:30", "2024-01-01", "=",
     "<<", "- a", "a: b", "#a", "a #b", "*a", "&a", "!a", "%a", "@a", "'", '"', "a\nb", "a\n", "\ta", "é", "\u2028",
     "{", "["],
)  # fmt: skip
def test_any_text_survives_yaml(text: str) -> None:
    """What is printed is read as the same text, whatever YAML would make of it."""
    metadata = api.ObjectMeta(name="a", annotations={"said": text, f"k {text}": "v"})
    one = api.Namespace(metadata=metadata)
    assert api.load(api.to_yaml(one)).objects == (one,)


def test_yaml_of_several_objects_is_several_documents() -> None:
    """In their order; keys are sorted, as kubectl sorts them."""
    one, two = (api.Namespace(metadata=api.ObjectMeta(name=name)) for name in ("b", "a"))
    text = api.to_yaml(one, two)
    assert api.load(text).objects == (one, two)
    assert [line for line in text.splitlines() if not line.startswith(" ")] == [
        "apiVersion: v1", "kind: Namespace", "metadata:", "---", "apiVersion: v1", "kind: Namespace", "metadata:",
    ]  # fmt: skip
