"""Does a zone at AWS take what was planned?

Route 53 is the provider that most people know external-dns with. A change of a zone is one batch, of which all is done
or nothing: what goes is deleted with all its facts, so that a record set that somebody else has changed since stays,
and the batch is refused.

    import boto3
    provider = Route53.of(boto3.client("route53"), "example.org")
    provider.apply(shop.external_dns(provider.zone()))

It needs the extra `route53`, and credentials of AWS's own kind. The tests ask moto, which plays Route 53 in the same
process; nothing here was ever tried at AWS itself.

Not here: aliases, weights and other routing policies, health checks, batches of more than 1,000 changes. Guide section
5.5; the API of Amazon Route 53 (2013-04-01).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import msgspec

from k8snetlab.dns.external import Plan
from k8snetlab.dns.messages import absolute
from k8snetlab.dns.zone import RecordSet, Zone
from k8snetlab.errors import CannotDo, Problem, UnknownName

__all__ = ["Route53"]

ASTERISK = "\\052"
"""How Route 53 writes an asterisk."""


class Route53(msgspec.Struct, frozen=True):
    """A provider for one hosted zone: a client of boto3, the zone's name, and its id."""

    client: Any
    origin: str
    id: str

    @classmethod
    def of(cls, client: Any, origin: str) -> Self:
        """The hosted zone of that name. Raises `UnknownName` naming those that there are."""
        wanted = absolute(origin, "zone").lower()
        pages = client.get_paginator("list_hosted_zones").paginate()
        known = {each["Name"]: each["Id"] for page in pages for each in page["HostedZones"]}
        if wanted not in known:
            raise UnknownName("hosted zone", wanted, known)
        return cls(client, wanted, known[wanted])

    def zone(self) -> Zone:
        """The whole zone."""
        pages = self.client.get_paginator("list_resource_record_sets").paginate(HostedZoneId=self.id)
        return Zone.of(self.origin, (_read(each) for page in pages for each in page["ResourceRecordSets"]))

    def apply(self, plan: Plan) -> None:
        """One batch with all changes. Raises `CannotDo` with what Route 53 says."""
        from botocore.exceptions import ClientError

        batch = list(_batch(plan))
        if not batch:
            return
        try:
            self.client.change_resource_record_sets(HostedZoneId=self.id, ChangeBatch={"Changes": batch})
        except ClientError as error:
            said = error.response["Error"]
            message = f"update refused: {said['Code']}: {said['Message']}"
            raise CannotDo(Problem(message, object=self.id, field=self.origin)) from error


def _batch(plan: Plan) -> Iterator[dict[str, Any]]:
    changes = (*plan.changes, *plan.texts)
    yield from ({"Action": "DELETE", "ResourceRecordSet": _said(each.before)} for each in changes if each.before)
    yield from ({"Action": "CREATE", "ResourceRecordSet": _said(each.after)} for each in changes if each.after)


def _said(records: RecordSet) -> dict[str, Any]:
    data = [{"Value": each} for each in records.data]
    return {"Name": records.name, "Type": records.type, "TTL": records.ttl, "ResourceRecords": data}


def _read(said: dict[str, Any]) -> RecordSet:
    data = tuple(sorted(each["Value"] for each in said.get("ResourceRecords", ())))
    return RecordSet(said["Name"].replace(ASTERISK, "*").lower(), said["Type"], said.get("TTL", 0), data)
