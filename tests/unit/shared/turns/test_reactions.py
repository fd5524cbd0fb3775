"""What an attempt's end means for its account, its egress and the next attempt."""

import time

import pytest

from shared import errors
from shared.accounts import EGRESS_REST
from shared.store.leases import COMMON_FAILURE_CAP_SECONDS, SERVED, Outcome
from shared.turns.reactions import (
    REACTIONS,
    outcome_of,
    reaction_to,
)


def outcome(error: errors.GatewayError | None) -> Outcome:
    return outcome_of(error, served=False)


def every_upstream_error() -> list[type[errors.UpstreamError]]:
    found, left = [], [errors.UpstreamError]
    while left:
        kind = left.pop()
        found.append(kind)
        left += kind.__subclasses__()
    return found


@pytest.mark.parametrize("kind", every_upstream_error())
def test_every_failure_of_the_upstream_has_a_reaction(kind: type[errors.UpstreamError]) -> None:
    assert reaction_to(kind()) in [reaction for _, reaction in REACTIONS]


def test_the_callers_fault_and_ours_are_never_tried_again() -> None:
    assert not reaction_to(errors.ContentRefused()).again
    assert not reaction_to(errors.StoreUnavailable()).again
    assert not reaction_to(errors.GatewayError()).again


def test_no_failure_that_hits_every_account_alike_rests_one_for_more_than_five_seconds() -> None:
    for kind in (errors.UpstreamUnavailable, errors.UpstreamSilent, errors.LoginFailed):
        cooldown = outcome(kind()).cooldown
        assert cooldown is not None
        assert cooldown.seconds <= cooldown.cap_seconds <= COMMON_FAILURE_CAP_SECONDS
    assert outcome(errors.UpstreamEmpty()).cooldown is None
    assert outcome(errors.UpstreamProtocolError()).cooldown is None


def test_a_spent_quota_rests_the_account_until_the_errors_own_moment() -> None:
    error = errors.UpstreamQuota()
    cooldown = outcome(error).cooldown
    assert cooldown is not None
    assert cooldown.until == pytest.approx(error.resumes_at(time.time()), abs=5)


def test_a_firewall_refusal_rests_the_egress_and_not_the_account() -> None:
    found = outcome(errors.UpstreamBlocked())
    assert found.cooldown is None
    assert found.egress_rest is not None
    assert found.egress_rest.seconds == EGRESS_REST.seconds


def test_a_caller_that_left_before_the_first_event_proves_nothing() -> None:
    assert outcome(None) == Outcome()
    assert outcome_of(None, served=True) == SERVED


def test_what_the_moderation_refused_counts_as_served() -> None:
    assert outcome(errors.ContentRefused()).ok
