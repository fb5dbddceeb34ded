"""Reading manifests: sources, places, and what is said of bad input."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from k8snetlab import api
from k8snetlab.api.manifest import YAML_LIMIT, Source
from k8snetlab.errors import ManifestError, Problem

SERVICE = """\
apiVersion: v1
kind: Service
metadata:
  name: api
  namespace: shop
spec:
  ports:
  - port: 80
    targetPort: http
"""

CONFIG: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}}


def problems(*sources: Source) -> tuple[Problem, ...]:
    """What is wrong with the sources."""
    with pytest.raises(ManifestError) as caught:
        api.load(*sources)
    return caught.value.problems


def problem(*sources: Source) -> Problem:
    """The one thing that is wrong with the sources."""
    (only,) = problems(*sources)
    return only


# Sources


def test_text_is_a_source() -> None:
    """A text with a line break is read as a manifest."""
    (service,) = api.load(SERVICE).of(api.Service)
    assert service.ref == "Service shop/api"


def test_json_text_is_a_source() -> None:
    """A text that begins with a brace is read as JSON."""
    assert api.load(json.dumps(CONFIG)).objects[0].ref == "ConfigMap default/settings"


def test_plain_data_and_objects_are_sources() -> None:
    """A dict and the object made from it say the same."""
    made = api.load(CONFIG).objects
    assert api.load(made[0]).objects == made


def test_manifests_are_a_source() -> None:
    """What was loaded before can be loaded again, with more."""
    both = api.load(api.load(SERVICE), CONFIG)
    assert [each.kind for each in both.objects] == ["Service", "ConfigMap"]


def test_folder_is_read_in_order_of_its_names(tmp_path: Path) -> None:
    """Files of a folder come sorted, those in folders below too, hidden ones not."""
    for name in ("b.yaml", "a.yml", "below/c.json", ".hidden/d.yaml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({**CONFIG, "metadata": {"name": path.stem}}))
    assert [each.name for each in api.load(tmp_path).objects] == ["a", "b", "c"]


def test_standard_input_is_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dash means what comes on standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(SERVICE.encode())))
    assert api.load("-").sources == ("<stdin>",)


def test_documents_and_lists_are_opened() -> None:
    """Several documents, a List, and a typed list without kinds in its items give their objects in order."""
    typed = {"apiVersion": "v1", "kind": "ConfigMapList", "items": [{"metadata": {"name": "typed"}}]}
    plain = {"apiVersion": "v1", "kind": "List", "items": [CONFIG, typed]}
    text = f"---\n{json.dumps(plain)}\n---\n{SERVICE}\n---\n# nothing here\n"
    assert [each.name for each in api.load(text).objects] == ["settings", "typed", "api"]


def test_json_documents_may_follow_each_other() -> None:
    """JSON objects one after the other are read as kubectl reads them."""
    other = {**CONFIG, "metadata": {"name": "other"}}
    assert len(api.load(json.dumps(CONFIG) + "\n" + json.dumps(other)).objects) == 2


def test_unknown_kinds_are_counted() -> None:
    """A kind the lab does not read is no error: it is listed once with a count."""
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "a"}}
    manifests = api.load(role, {**role, "metadata": {"name": "b"}}, CONFIG)
    assert [str(each) for each in manifests.unknown_kinds] == ["Role (rbac.authorization.k8s.io/v1) × 2"]
    assert len(manifests.objects) == 1


def test_foreign_kind_of_a_known_name_is_unknown() -> None:
    """Another group may have a Service of its own; it is not ours."""
    foreign = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"x": 1}}
    assert api.load(foreign).objects == ()


def test_files_joined_without_a_line_break_are_taken_apart() -> None:
    """A document end glued to a closing bracket is understood, and line numbers stay right."""
    glued = SERVICE.rstrip().replace("targetPort: http", "targetPort: {}---\n") + SERVICE.replace("port: 80", "prt: 80")
    assert [(each.line, each.field) for each in problems(glued)] == [
        (9, "spec.ports[0].targetPort"),
        (17, "spec.ports[0].prt"),
        (17, "spec.ports[0].port"),
    ]


def test_manifests_of_others_load(shared: Path) -> None:
    """Real manifests that were not written for this project load as they are."""
    manifests = api.load(*sorted((shared / "real").glob("*.yaml")))
    assert (len(manifests.of(api.Deployment)), len(manifests.of(api.NetworkPolicy))) == (12, 13)
    for path in sorted((shared / "real" / "gateway-api").glob("*.yaml")):
        manifests = api.load(path)
        assert manifests.objects or manifests.unknown_kinds


@pytest.mark.parametrize("name", ["nodes", "pods", "svc", "endpointslices"])
def test_dump_of_a_live_cluster_loads_and_prints_back(golden: Path, name: str) -> None:
    """What the API server printed is read without loss: plain data made from the objects gives equal objects."""
    manifests = api.load(golden / f"{name}.json")
    assert len(manifests.objects) == len(json.loads((golden / f"{name}.json").read_text())["items"])
    assert api.load(*map(api.to_dict, manifests.objects)).objects == manifests.objects


# Places


def test_objects_know_where_they_were_written(tmp_path: Path) -> None:
    """The place of an object is its file and first line, and a problem found later can be given it."""
    path = tmp_path / "a.yaml"
    path.write_text(f"# one\n---\n{SERVICE}")
    manifests = api.load(path)
    assert str(manifests.places["Service shop/api"]) == f"{path}:3"
    assert manifests.placed(Problem("no", object="Service shop/api")).line == 3


def test_rules_of_policies_know_their_lines() -> None:
    """Each rule of its own; an object that takes the place of another one takes these with it."""
    text = (
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: a\nspec:\n  podSelector: {}\n"
        "  ingress:\n    - ports:\n        - port: 80\n    # another one\n    - from:\n        - podSelector: {}\n"
    )
    manifests = api.load(text)
    rules = {key: place.line for key, place in manifests.places.items()}
    assert rules == {
        "NetworkPolicy default/a": 1,
        "NetworkPolicy default/a spec.ingress[0]": 8,
        "NetworkPolicy default/a spec.ingress[1]": 11,
    }
    assert list(manifests.replacing(api.Manifests(manifests.objects)).places) == ["NetworkPolicy default/a"]


def test_wrong_field_names_file_line_object_and_field(tmp_path: Path) -> None:
    """A typo is found where it stands, and the right name is suggested."""
    path = tmp_path / "a.yaml"
    path.write_text(SERVICE.replace("targetPort", "tagetPort"))
    said = problem(path)
    assert (said.file, said.line, said.object, said.field) == (
        str(path), 9, "Service shop/api", "spec.ports[0].tagetPort",
    )  # fmt: skip
    assert said.message == "there is no such field; did you mean targetPort?"


def test_wrong_type_names_line_and_value() -> None:
    """A text where a number belongs is named with its line."""
    said = problem(SERVICE.replace("port: 80", 'port: "80"'))
    assert (said.line, said.message) == (8, "must be a whole number, not text '80'")


def test_problem_in_a_list_has_the_line_of_its_item() -> None:
    """Objects in a List are named with the line they begin at."""
    item = "- apiVersion: v1\n  kind: Service\n  metadata: {name: a}\n  spec:\n    x: 1\n"
    assert problem(f"apiVersion: v1\nkind: List\nitems:\n{item}").line == 8


def test_problem_in_json_has_a_line() -> None:
    """JSON is read fast and without lines; when something is wrong the line is found all the same."""
    text = json.dumps({**CONFIG, "dta": {}}, indent="\t")
    assert (problem(text).line, problem(text).field) == (7, "dta")


def test_all_problems_of_all_files_are_said_at_once(tmp_path: Path) -> None:
    """One wrong field does not hide the next, nor one file another."""
    (tmp_path / "a.yaml").write_text(SERVICE.replace("targetPort", "a").replace("name: api", "name: api\n  b: 1"))
    (tmp_path / "b.yaml").write_text("a: [1\n")
    assert [each.field for each in problems(tmp_path)] == ["metadata.b", "spec.ports[0].a", ""]


def test_many_problems_are_capped() -> None:
    """A thousand problems are not a thousand lines."""
    said = problems(*({**CONFIG, "metadata": {"name": f"a{each}"}, "x": 1} for each in range(1000)))
    assert said[-1].message == "… and 950 more problems"


# Bad input


def test_broken_yaml_names_its_line() -> None:
    """A syntax error says where it is."""
    said = problem("apiVersion: v1\nkind: [Service\n")
    assert said.file == "<text>"
    assert said.line == 3
    assert said.message.startswith("is not YAML: ")


def test_broken_json_file_names_its_line(tmp_path: Path) -> None:
    """A .json file is not tried as YAML: the message is JSON's."""
    path = tmp_path / "a.json"
    path.write_text('{\n"kind": nothing\n}')
    assert (problem(path).line, problem(path).message) == (2, "is not JSON: Expecting value")


def test_tab_is_named() -> None:
    """The usual mistake in YAML gets a plain answer."""
    assert problem("metadata:\n\tname: a\n").message == "a tab cannot indent YAML: use spaces"


def test_template_is_named() -> None:
    """A Helm template is not a manifest yet."""
    assert "helm template" in problem("metadata:\n  name: {{ .Release.Name }}-x: y\n").message


def test_duplicate_key_names_both_lines() -> None:
    """A key that stands twice would silently lose a value."""
    said = problem(SERVICE.replace("  namespace: shop", "  namespace: shop\n  name: web"))
    assert (said.line, said.message) == (6, "the key 'name' stands twice, in lines 4 and 6")


def test_duplicate_key_in_json_is_found() -> None:
    """JSON has the same rule."""
    said = problem(json.dumps(CONFIG).replace('"kind"', '\n"kind": "Pod",\n"kind"'))
    assert (said.line, said.message) == (3, "the key 'kind' stands twice, in lines 2 and 3")


def test_duplicate_key_is_found_where_a_colon_is_escaped() -> None:
    """Colons are counted to find a key that stands twice; one that is written as a number does not hide it."""
    text = json.dumps({**CONFIG, "data": {"time": "12:30"}}).replace("12:30", "12\\u003a30")
    assert api.load(text).of(api.ConfigMap)[0].data == {"time": "12:30"}
    assert "stands twice" in problem(text.replace('"kind"', '"kind": "Pod", "kind"')).message


def test_numbers_in_json_are_whole_where_they_can_be() -> None:
    """80.0 and 1e3 are the whole numbers 80 and 1000, as in YAML."""
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "api"}, "spec": {"ports": [{"port": 80}]}}
    text = json.dumps(service).replace("80", '80.0, "targetPort": 1e3')
    port = api.load(text).of(api.Service)[0].spec.ports[0]
    assert (port.port, port.target_port) == (80, 1000)


def test_aliases_of_one_document_are_forgotten_in_the_next() -> None:
    """Many documents with an anchor each: every one keeps its own data, whatever was at its place in memory before."""
    documents = [
        f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c{each}, labels: &a {{of: v{each}}}, annotations: *a}}\n"
        f"data: {{one: x{each}, two: y{each}}}\n"
        for each in range(200)
    ]
    found = api.load("---\n".join(documents)).of(api.ConfigMap)
    assert [(one.labels, one.annotations, one.data["two"]) for one in found] == [
        ({"of": f"v{each}"}, {"of": f"v{each}"}, f"y{each}") for each in range(200)
    ]


def test_duplicate_object_names_both_places(tmp_path: Path) -> None:
    """Two objects of one kind, namespace and name cannot both be meant."""
    (tmp_path / "a.yaml").write_text(SERVICE)
    (tmp_path / "b.yaml").write_text(f"# again\n{SERVICE}")
    said = problem(tmp_path)
    assert (said.object, said.line) == ("Service shop/api", 2)
    assert said.message == f"is there twice, first at {tmp_path / 'a.yaml'}:1"


def test_duplicate_object_in_json_names_both_lines(tmp_path: Path) -> None:
    """Lines of JSON are looked up when they are needed."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps(CONFIG) + "\n" + json.dumps(CONFIG))
    assert (problem(path).line, problem(path).message) == (2, f"is there twice, first at {path}:1")


@pytest.mark.parametrize("text", ["", "\n", "---\n---\n", "# nothing\n"])
def test_empty_file_is_an_error(tmp_path: Path, text: str) -> None:
    """A file without an object is a mistake, not a cluster without objects."""
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert problem(path).message == "is empty: there is no object in it"


def test_empty_list_is_an_answer() -> None:
    """An empty List is what kubectl prints where there is nothing: no mistake."""
    assert api.load("apiVersion: v1\nkind: List\nitems: []\n").objects == ()


def test_missing_file_and_empty_folder_are_named(tmp_path: Path) -> None:
    """A path that leads nowhere is said with the path."""
    said = problems(tmp_path / "no.yaml", tmp_path)
    assert [each.message.split(",")[0] for each in said] == [
        "there is no such file or folder",
        "there is no .yaml",
    ]


@pytest.mark.parametrize(("text", "message"), [("- a\n- b\n", "a list"), ("just words\n", "'just words'")])
def test_yaml_that_is_no_object_is_named(text: str, message: str) -> None:
    """YAML may be anything; an object is a mapping."""
    assert message in problems(text)[0].message


def test_binary_file_is_named(tmp_path: Path) -> None:
    """A picture is not a manifest."""
    path = tmp_path / "a.yaml"
    path.write_bytes(b"kind: \xff\xfe\n")
    assert problem(path).message == "is not UTF-8 text"


def test_control_character_is_named() -> None:
    """A text with a NUL in it is not YAML, and says so with a line."""
    assert problem("kind: a\x00b\n").message.startswith("is not YAML")


def test_fifty_megabytes_of_yaml_are_refused(tmp_path: Path) -> None:
    """A file that would take minutes is refused at once, with the limit and the way out."""
    path = tmp_path / "big.yaml"
    path.write_bytes(b"# " + b"x" * (50 << 20))
    said = problem(path)
    assert said.message == "has 50 MB, and YAML is read up to 32 MB: use JSON (kubectl get … -o json)"
    assert len(path.read_bytes()) > YAML_LIMIT


def test_fifty_megabytes_of_json_load(tmp_path: Path) -> None:
    """The same size in JSON is read."""
    path = tmp_path / "big.json"
    path.write_text(json.dumps({**CONFIG, "data": {"text": "x" * (50 << 20)}}))
    assert api.load(path).objects[0].name == "settings"


def test_aliases_that_multiply_are_refused() -> None:
    """Nine lists of nine aliases each would be a billion values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 9)]
    assert "aliases repeat more than 1,000,000 values" in problems("\n".join(lines) + "\n")[0].message


def test_alias_inside_itself_is_refused() -> None:
    """A value cannot hold itself."""
    assert "inside what it repeats" in problem("a: &a [*a]\n").message


def test_endless_nesting_is_refused() -> None:
    """A hundred thousand brackets end in a message, not in a crash."""
    assert problem("a: " + "[" * 100_000 + "\n").message


def test_endless_nesting_in_json_is_refused() -> None:
    """The same for JSON."""
    assert problem('{"a":' + "[" * 100_000).message


def test_problem_of_a_hand_made_object_is_found() -> None:
    """Objects made in Python meet the same rules."""
    service = api.Service(metadata=api.ObjectMeta(name="a"), spec=api.ServiceSpec())
    assert problem(service).field == "spec.ports"
