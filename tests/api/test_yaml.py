"""YAML as kubectl reads it, which is not as PyYAML does."""

from typing import Any

import pytest

from k8snetlab import api
from k8snetlab.api.manifest import _plain
from k8snetlab.errors import ManifestError


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("y", True), ("Y", True), ("yes", True), ("on", True), ("TRUE", True),
        ("n", False), ("No", False), ("off", False), ("false", False),
        ("", None), ("~", None), ("null", None),
        ("12:30", "12:30"), ("2024-01-01", "2024-01-01"), ("=", "="), ("1.2.3", "1.2.3"), ("-", "-"), (".", "."),
        ("10.0.0.1", "10.0.0.1"), ("1e3x", "1e3x"), ("+", "+"), ("0x", "0x"), ("yEs", "yEs"),
        ("0", 0), ("80", 80), ("-1", -1), ("+7", 7), ("1_000", 1000), ("0644", 420), ("0o17", 15), ("0x1F", 31),
        ("0b101", 5), ("08", 8), ("80.0", 80), ("1e3", 1000), ("1.5", 1.5), (".5", 0.5), ("-2E-1", -0.2),
    ],
)  # fmt: skip
def test_unquoted_words(word: str, value: Any) -> None:
    """Booleans are more than true and false, times are texts, and whole numbers may be written as floats."""
    assert (_plain(word), type(_plain(word))) == (value, type(value))


def config(text: str) -> api.ConfigMap:
    """The ConfigMap with this YAML in it."""
    return api.load(f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n{text}\n").of(api.ConfigMap)[0]


def test_quotes_make_text() -> None:
    """What is quoted stays a text."""
    assert config("data: {a: 'yes', b: \"80\"}").data == {"a": "yes", "b": "80"}


def test_keys_become_text() -> None:
    """A key is a text in JSON: an unquoted number or boolean turns into one."""
    assert config("data: {80: a, y: b, 'n': c}").data == {"80": "a", "true": "b", "n": "c"}


def test_merge_keys_and_aliases_work() -> None:
    """`<<` brings in what is not there; what is there wins, and of several the first."""
    text = "data:\n  <<: [{a: one, b: one}, {b: two, c: two}]\n  a: own"
    assert config(text).data == {"a": "own", "b": "one", "c": "two"}


def test_anchor_is_repeated_by_its_alias() -> None:
    """The same labels may be written once."""
    manifests = api.load(
        "apiVersion: v1\nkind: Service\nmetadata: {name: a, labels: &app {app: web}}\n"
        "spec: {selector: *app, ports: [{port: 80}]}\n"
    )
    assert manifests.of(api.Service)[0].spec.selector == {"app": "web"}


def test_port_may_be_a_float_that_is_whole() -> None:
    """80.0 is the port 80, also in JSON."""
    for text in ("spec: {ports: [{port: 80.0}]}\n", "spec: {ports: [{port: 8e1}]}\n"):
        service = api.load(f"apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\n{text}").of(api.Service)[0]
        assert service.spec.ports[0].port == 80
    text = '{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"},"spec":{"ports":[{"port":80.0}]}}'
    assert api.load(text).of(api.Service)[0].spec.ports[0].port == 80


def test_namespace_called_y_is_a_boolean() -> None:
    """The namespace `y` must be quoted, and the message says so."""
    with pytest.raises(ManifestError, match="must be text, but true is true or false: write it in quotes"):
        api.load("apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: y}\n")


def test_null_is_not_said() -> None:
    """A field that is null counts as not written; in a map of texts it is the empty text, as in Go."""
    manifests = api.load(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n  creationTimestamp: null\n  labels: {a: null}\n"
        "spec:\n  clusterIP: null\n  selector: null\n  ports: [{port: 80, name: null}]\nstatus: {loadBalancer: null}\n"
    )
    service = manifests.of(api.Service)[0]
    assert service.labels == {"a": ""}
    assert service.spec == api.ServiceSpec(ports=(api.ServicePort(port=80),))


def test_foreign_tag_is_an_error() -> None:
    """A tag of another program has no meaning here; the standard ones have."""
    assert config("data: {a: !!str 80}").data == {"a": "80"}
    with pytest.raises(ManifestError, match="the tag !Ref has no meaning"):
        config("data: {a: !Ref b}")


def test_multi_line_texts_stay_whole() -> None:
    """Block scalars keep their lines, also a line that looks like the end of a document."""
    assert config("data:\n  a: |\n    {}---\n    b\n").data == {"a": "{}---\nb\n"}
