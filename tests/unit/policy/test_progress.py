"""Which node has which policy, worked out from digests, against what the nodes really have."""

from __future__ import annotations

from typing import Any

from ciliate.model.policy_report import PolicyDigest, fingerprint
from ciliate_policy.operator.progress import Progress
from ciliate_policy.rules import PolicyKey
from hypothesis import given, settings
from hypothesis import strategies as st

NODES = ("n1", "n2", "n3")
NAMES = ("a", "b", "c")
State = dict[str, tuple[str, int]]  # name to uid and generation

change = st.tuples(st.just("change"), st.sampled_from(NAMES))
delete = st.tuples(st.just("delete"), st.sampled_from(NAMES))
catch_up = st.tuples(st.just("node"), st.sampled_from(NODES), st.integers(0, 5))
see = st.tuples(st.just("operator"), st.integers(0, 5))


def key_of(name: str) -> PolicyKey:
    return PolicyKey("CiliumNetworkPolicy", "default", name)


class World:
    """Policies as the store had them, one state after another; nodes and the operator see each a state of them."""

    def __init__(self) -> None:
        self.states: list[State] = [{}]
        self.at = dict.fromkeys(NODES, 0)
        self.seen = 0
        self.uids = 0
        self.progress = Progress()
        for name in NODES:
            self.progress.set_node(name)

    def alter(self, name: str, there: bool) -> None:
        state = dict(self.states[-1])
        if not there:
            if name not in state:
                return
            del state[name]
        elif name in state:
            uid, generation = state[name]
            state[name] = (uid, generation + 1)
        else:
            self.uids += 1
            state[name] = (f"u{self.uids}", 1)
        self.states.append(state)

    def report(self, node: str, steps: int) -> None:
        self.at[node] = min(self.at[node] + steps, len(self.states) - 1)
        digest = PolicyDigest()
        for name, (uid, generation) in self.states[self.at[node]].items():
            digest.put(name, uid, generation)
        self.progress.set_report(node, {"CiliumNetworkPolicy": str(digest)})

    def look(self, steps: int) -> None:
        for _ in range(steps):
            if self.seen + 1 < len(self.states):
                before, self.seen = self.states[self.seen], self.seen + 1
                now = self.states[self.seen]
                for name in NAMES:
                    if name in now and now[name] != before.get(name):
                        self.progress.set_policy(key_of(name), *now[name])
                    elif name in before and name not in now:
                        self.progress.remove_policy(key_of(name))

    def has(self, node: str, name: str) -> bool:
        return self.states[self.at[node]].get(name) == self.states[self.seen][name]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(change, delete, catch_up, see), max_size=40))
def test_no_node_is_ever_thought_to_have_what_it_lacks_and_in_the_end_all_is_known(steps: list[Any]) -> None:
    world = World()
    for step in steps:
        if step[0] in ("change", "delete"):
            world.alter(step[1], step[0] == "change")
        elif step[0] == "node":
            world.report(step[1], step[2])
        else:
            world.look(step[1])
        list(world.progress.take())
        for name in world.states[world.seen]:
            lacking = world.progress.lacking(key_of(name))
            for node in NODES:
                # A node that is ahead of the operator has what the operator takes for the newest, or a newer one.
                assert node in lacking or world.has(node, name) or world.at[node] > world.seen
    for node in NODES:
        world.report(node, len(world.states))
    world.look(len(world.states))
    told = dict(world.progress.take())
    for name in world.states[-1]:
        assert world.progress.lacking(key_of(name)) == []
        assert told.get(key_of(name), True)


def test_what_a_report_newly_says_is_told_once_and_only_of_policies_that_it_concerns() -> None:
    world = World()
    for name in NAMES:
        world.alter(name, True)
    world.look(3)
    for node in NODES:
        world.report(node, 3)
    assert dict(world.progress.take()) == {key_of(name): True for name in NAMES}
    assert list(world.progress.take()) == []
    world.alter("b", True)
    world.look(1)
    world.report("n1", 1)
    assert dict(world.progress.take()) == {key_of("b"): False}
    world.report("n2", 1)
    world.report("n3", 1)
    assert dict(world.progress.take()) == {key_of("b"): True}


def test_a_sum_of_fingerprints_does_not_depend_on_the_way() -> None:
    one, other = PolicyDigest(), PolicyDigest()
    one.put("a", "u1", 1)
    one.put("b", "u2", 1)
    one.put("a", "u1", 2)
    other.put("a", "u1", 2)
    other.put("c", "u3", 1)
    other.put("b", "u2", 1)
    other.remove("c")
    assert str(one) == str(other) != str(PolicyDigest())
    assert fingerprint("u1", 12) != fingerprint("u11", 2)
