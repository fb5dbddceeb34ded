"""What a CNI is told, and what it says of wrong options."""

from __future__ import annotations

import pytest

from k8snetlab import cni
from k8snetlab.cni.plan import UNENFORCED, Enforcement, PolicyAttachment, derived_mac
from k8snetlab.errors import BadOption
from tests.cni.example import machine, plan


def test_an_unknown_cni_is_named_with_those_that_exist() -> None:
    """The message lists what can be chosen."""
    with pytest.raises(BadOption, match=r"cni: there is no CNI 'calico2'; there are bridge, .*flannel, .*cloud"):
        cni.named("calico2")


@pytest.mark.parametrize("name", cni.VARIANTS)
def test_an_unknown_option_is_named_with_those_that_exist(name: str) -> None:
    """Nothing is guessed: a misspelt option is an error, not ignored."""
    known = ", ".join(option.name for option in cni.named(name).options)
    with pytest.raises(BadOption, match=rf"CNI {name}: hairpinn: {name} has no such option; it has {known}"):
        cni.named(name, {"hairpinn": "on"})


@pytest.mark.parametrize("name", cni.VARIANTS)
def test_a_wrong_value_is_named_with_those_that_exist(name: str) -> None:
    """The values an option takes are part of the message."""
    option = next(option for option in cni.named(name).options if option.values)
    with pytest.raises(BadOption, match=rf"{option.name}: 'perhaps' is none of {', '.join(option.values)}"):
        cni.named(name, {option.name: "perhaps"})


@pytest.mark.parametrize("value", ["0", "67", "65536", "-1", "1e3", "many", "١٤٥٠"])
def test_an_mtu_that_no_link_can_have_is_refused(value: str) -> None:
    """An IPv4 link carries at least 68 bytes (RFC 791), and a length field counts to 65535."""
    with pytest.raises(BadOption, match=r"mtu: .* is no whole number from 68 to 65535"):
        cni.named("bridge", {"mtu": value})


@pytest.mark.parametrize("name", cni.VARIANTS)
def test_every_variant_says_what_it_is(name: str) -> None:
    """The name on the command line and the object's own agree, and there is a sentence about it."""
    plugin = cni.named(name)
    assert plugin.name == name
    assert "each" in plugin.summary


def test_others_are_all_machines_with_pods_of_the_family_but_oneself() -> None:
    """A node without a pod CIDR of that family has nothing to route to."""
    one, two, three = machine(1), machine(2, families=(6,)), machine(3, families=(4, 6))
    found = plan(one, two, three).others(one, 4)
    assert [(other.machine.name, str(other.pods), other.via) for other in found] == [
        ("node3", "10.244.3.0/24", "172.18.0.13")
    ]


def test_a_derived_mac_is_local_and_for_one_station() -> None:
    """The two low bits of the first byte say: not a vendor's, not a group's."""
    first = int(derived_mac("node1 flannel.1")[:2], 16)
    assert first & 0b11 == 0b10


def test_every_variant_says_by_what_it_enforces_policies() -> None:
    """Bridges and flannel by nothing; Cilium by identities, which needs no chain."""
    found = {name: getattr(cni.named(name), "policies", None) for name in cni.VARIANTS}
    assert {found[name] for name in ("bridge", "flannel", "cloud")} == {UNENFORCED}
    assert found["cilium"] == PolicyAttachment(Enforcement.IDENTITY)
