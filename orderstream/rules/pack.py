"""A pack: a folder of rules and a policy, read whole, checked, compiled once, named by its content.

Law: the version is a hash of what the pack says, so two packs of one version judge alike and a changed number is another
version. A pack that cannot be understood is a PackError with the file and the reason; nothing of it is used.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import cel
import msgspec
import yaml

from orderstream import money, times
from orderstream.facts import Fact
from orderstream.identity import LIKELY, OPEN_KINDS, RANK
from orderstream.rules import samples
from orderstream.rules.closures import Closure, Undecided, closure
from orderstream.rules.model import LEVELS, Kind, Policy, Rule, duration

CEL_ERRORS = (KeyError, TypeError, ValueError, RuntimeError, IndexError, ZeroDivisionError, OverflowError)
"""What the CEL library raises for an expression that meets what it can't read."""

DAY_WINDOW = "day"
"""`within: day`: the shop's calendar day, up to the order's own time."""

HISTORY = 180 * times.DAY
"""How far back `history` looks."""


_T = TypeVar("_T")
_ORDER_FIELD = re.compile(r"\border\.(\w+)")
_WHOLE_ORDER = re.compile(r"\border\b(?!\.)")
_COUNTED = re.compile(r"\bsize\(order\.unmapped\)")
_PLACE = re.compile(r"\{(\w+)\}")


class PackError(ValueError):
    """The pack cannot be used; the sentence says which file and why."""


class Judge:
    """A rule, ready to run: its durations in ms and its expressions compiled."""

    __slots__ = (
        "above",
        "at_least",
        "by_day",
        "closures",
        "explains",
        "fewest",
        "id",
        "kinds",
        "least",
        "limit",
        "marks_all",
        "of_pieces",
        "plain",
        "programs",
        "remembers",
        "rule",
        "sharing",
        "span",
        "windowed",
    )

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.id = rule.id
        self.kinds: tuple[Kind, ...] = () if rule.on == "order" else rule.on
        self.least = RANK[rule.confidence]
        """How sure a key must be for this rule to see it."""
        self.by_day = rule.within == DAY_WINDOW
        self.span = 0 if rule.within is None else times.DAY if self.by_day else duration(rule.within)
        self.remembers = "history" in rule.needs
        """Reads what came of other orders; its window is HISTORY long."""
        if self.remembers:
            self.span = HISTORY
        self.marks_all = rule.marks == "all"
        self.sharing = rule.sharing is not None
        measure = rule.measure
        self.at_least = measure.at_least if measure else None
        self.above = measure.above if measure else None
        self.limit = self.at_least if self.at_least is not None else self.above
        self.fewest = 0
        """Orders that a window of it must have, to fire."""
        if measure is not None and (measure.count is not None or measure.distinct is not None):
            self.fewest = self.at_least if self.at_least is not None else int(self.above or 0) + 1
        self.programs: dict[str, cel.Program] = {}
        for name in ("when", "unavailable", "members", "profile", "value", "limit", "detail"):
            source = getattr(rule, name)
            if source is not None:
                self.programs[name] = _compile(rule.id, name, source)
        made = ((name, closure(getattr(rule, name))) for name in self.programs)
        self.closures: dict[str, Closure] = {name: one for name, one in made if one is not None}

        self.of_pieces = "stock" in rule.needs or (measure is not None and measure.sum == "units")
        """Asked only about pieces on the shelf, not about a bundle as such."""
        self.explains = bool(self.kinds) and not self.programs.keys().isdisjoint(("value", "limit", "detail"))
        """Its evidence is read by expressions, not only measured."""
        self.windowed = self.span > 0
        self.plain = measure is not None and measure.nearest is None and not rule.needs and "profile" not in self.programs
        """All that it asks of an order that counts is what the window's orders come to."""

    def fires(self, value: float) -> bool:
        """Whether a measured value is past the rule's limit."""
        return value >= self.at_least if self.at_least is not None else self.above is not None and value > self.above

    def test(self, name: str, values: Values) -> bool | None:
        """Whether a condition holds; None where the order lacks what it reads: then the rule can't be judged."""
        told = self.read(name, values)
        return None if told is None else bool(told)

    def read(self, name: str, values: Values) -> Any:
        """What an expression gives; None where the order lacks what it reads, or the rule has none."""
        quick = self.closures.get(name)
        if quick is not None:
            try:
                return quick(values.env)
            except Undecided:
                pass
        program = self.programs.get(name)
        try:
            return _ordered(program.execute(values.context())) if program is not None else None
        except CEL_ERRORS:
            return None

    def try_out(self, data: Mapping[str, object]) -> None:
        """Runs every expression on the samples. Raises PackError."""
        for name, program in self.programs.items():
            for sample in samples.contexts(name, self.kinds, self.rule.needs):
                try:
                    result = program.execute(cel.Context({**sample, "data": data}))
                except CEL_ERRORS as error:
                    if isinstance(error, IndexError) and name in ("value", "limit", "detail"):
                        continue  # it picks from what fired, and in the sample nothing did
                    raise PackError(f"{self.id}.yaml: {name}: {type(error).__name__}: {' '.join(str(error).split())}") from error
                if name in ("when", "unavailable", "members", "profile") and not isinstance(result, bool):
                    raise PackError(f"{self.id}.yaml: {name}: gives {result!r}, not true or false")


def _ordered(told: Any) -> Any:
    """What the library gives, with its maps in the order of their keys: of themselves they lie otherwise each time, and a verdict does not."""
    if isinstance(told, dict):
        return {key: _ordered(told[key]) for key in sorted(told, key=lambda key: (type(key).__name__, key))}
    return [_ordered(one) for one in told] if isinstance(told, list) else told


class Values:
    """What expressions read: variables by name, handed over to the library only where it is asked."""

    __slots__ = ("_pack", "env")

    def __init__(self, pack: Pack, env: dict[str, Any]) -> None:
        self._pack = pack
        self.env = env

    def context(self) -> cel.Context:
        return self._pack.context(self.env)


class Judges:
    """The rules that ask one kind of entity, by how they are judged. span: ms, the longest window.

    alone, firing_alone: of newest and marking those that have something to say of an order that nothing else is known beside.
    """

    __slots__ = (
        "_alone_ids", "_alone_missing", "_alone_sums", "_alone_unclear",
        "alone", "firing_alone", "marking", "newest", "reach", "remembering", "span", "windowed",
    )  # fmt: skip

    def __init__(self, judges: list[Judge], within: int = 0) -> None:
        """within: ms up to which an order is told of those before it, whatever the rules ask."""
        self.marking = [j for j in judges if j.marks_all]
        self.newest = [j for j in judges if not j.marks_all]
        self.windowed = [j for j in self.newest if j.windowed]
        self.alone = [j for j in self.newest if j.fewest <= 1 or j.rule.needs or "profile" in j.programs]
        self.firing_alone = [j for j in self.marking if j.fewest <= 1]
        self.span = max((j.span for j in judges), default=0)
        self.reach = max(self.span, within, 1)
        """Orders so many ms apart have no part in what is said of one another."""
        self.remembering = any(j.remembers or (j.rule.measure is not None and j.rule.measure.nearest) for j in judges)
        """What came of an order has a part in what is said of others."""
        blind = [j for j in self.alone if _blind(j)]
        sums = [j for j in self.alone if j not in blind and j.plain and j.rule.measure is not None and j.rule.measure.sum]
        self._alone_ids = frozenset(j.id for j in self.alone)
        self._alone_sums = [(j, j.of_pieces) for j in sums]
        self._alone_unclear = bool(self.firing_alone) or len(blind) + len(sums) < len(self.alone)
        found = (tuple(sorted(j.id for j in blind if pieces or not j.of_pieces)) for pieces in (False, True))
        self._alone_missing: tuple[tuple[str, ...], tuple[str, ...]] = (next(found), next(found))

    def silent(self, fact: Fact) -> tuple[str, ...] | None:
        """The rules that cannot judge an order that counts in windows and that nothing else is known beside.

        None where one of the others may fire, or where that takes more than a look: then it is to be judged.
        """
        if self._alone_unclear or (fact.out and not self._alone_ids.isdisjoint(fact.out)):
            return None
        for judge, pieces in self._alone_sums:
            if judge.fires(fact.quantity if pieces else fact.total or 0) and (fact.quantity > 0 or not pieces):
                return None
        return self._alone_missing[fact.quantity > 0]


def _blind(judge: Judge) -> bool:
    """Whether a rule cannot judge an order without knowing anything else."""
    measure = judge.rule.measure
    return not {"stock", "rate"}.isdisjoint(judge.rule.needs) or (
        measure is not None and measure.nearest is not None and measure.members > 0 and "profile" not in judge.programs
    )


class Pack:
    """A compiled pack. version: `<name>@<hash of the content>`; lateness, horizon, clock_ahead, merge_within: ms; limits: of what comes after."""

    def __init__(self, policy: Policy, rules: Mapping[str, Rule]) -> None:
        self.policy = policy
        self.rules: dict[str, Rule] = dict(sorted(rules.items()))
        content = msgspec.json.encode(self._content(), order="deterministic")
        self.version = f"{policy.name}@{hashlib.sha256(content).hexdigest()[:12]}"
        try:
            self.lateness = duration(policy.lateness)
            self.horizon = duration(policy.horizon)
            self.clock_ahead = duration(policy.clock_ahead)
            self.merge_within = duration(policy.merge_within)
            self.limits = policy.downstream.limits()
            self.active_from = -1 if policy.active_from is None else times.parse(policy.active_from)
        except ValueError as error:
            raise PackError(f"policy.yaml: {error}") from error
        self._context: cel.Context | None = None
        self._handed: dict[str, Any] = {}
        self._kinds: dict[str, Judges] = {}
        self._stricter: dict[tuple[str, int], tuple[str, ...]] = {}
        self._absent: dict[tuple[object, ...], tuple[str, ...]] = {}
        self._among: dict[tuple[str, frozenset[str]], tuple[str, ...]] = {}
        self.judges: dict[str, Judge] = {}
        for rule in self.rules.values():
            _check(rule)
            self.judges[rule.id] = Judge(rule)
            self.judges[rule.id].try_out(self.policy.data)
        self._check_policy()
        self.own = [j for j in self.judges.values() if not j.kinds]
        self.by_kind: dict[str, list[Judge]] = {}
        for judge in self.judges.values():
            for kind in judge.kinds:
                self.by_kind.setdefault(kind, []).append(judge)
        self.asking = [j for j in self.judges.values() if j.kinds]
        self.measured = [
            j for j in self.asking if j.rule.measure is not None and (j.rule.measure.currency or j.rule.measure.distinct)
        ]
        self.filtered = [j for j in self.asking if ("members" in j.programs or "unavailable" in j.programs)]

    def _content(self) -> dict[str, object]:
        # the time from which a pack holds is not what it says
        policy = msgspec.structs.replace(self.policy, active_from=None)
        return {"policy": msgspec.to_builtins(policy), "rules": {k: msgspec.to_builtins(r) for k, r in self.rules.items()}}

    def _check_policy(self) -> None:
        if self.policy.currency not in money.EXPONENT:
            raise PackError(f"policy.yaml: currency {self.policy.currency!r} is not an ISO 4217 code")
        missing = [level for level in LEVELS if level not in self.policy.levels]
        if missing:
            raise PackError(f"policy.yaml: levels lacks {', '.join(missing)}")
        for level, said in self.policy.levels.items():
            try:
                duration(said.decide_within or "0s")
            except ValueError as error:
                raise PackError(f"policy.yaml: levels.{level}.decide_within: {error}") from error
        for rule in self.rules.values():
            if rule.measure is not None and rule.measure.currency not in (None, self.policy.currency):
                raise PackError(
                    f"{rule.id}.yaml: it sums {rule.measure.currency}, the policy's currency is {self.policy.currency}"
                )
        for combination in self.policy.combinations:
            strange = [r for r in (*combination.all, *combination.any) if r not in self.rules]
            if strange:
                raise PackError(f"policy.yaml: combination {combination.id} names no rule of this pack: {', '.join(strange)}")

    def values(self, **variables: Any) -> Values:
        """What this pack's expressions read: these variables, and `data`."""
        return Values(self, {"data": self.policy.data, **variables})

    def context(self, variables: Mapping[str, Any]) -> cel.Context:
        """The library's form of it, valid until it is asked for again.

        One context serves the pack's life: handing `data` over to the library costs more than a dozen rules.
        """
        if self._context is None:
            self._context = cel.Context({})
        for name, value in variables.items():
            if self._handed.get(name) is not value:
                self._context.add_variable(name, value)
                self._handed[name] = value
        return self._context

    @cached_property
    def order_fields(self) -> tuple[str, ...] | None:
        """The fields of `order` that any expression reads; None where that can't be told from its text."""
        sources = self._sources()
        if any(_WHOLE_ORDER.search(s) for s in sources):
            return None
        return tuple(sorted({name for s in sources for name in _ORDER_FIELD.findall(s)}))

    @cached_property
    def asks_nearest(self) -> bool:
        """Whether any expression may read what an unmapped line is like: none does that only counts those lines."""
        return self.order_fields is None or any("unmapped" in _COUNTED.sub("", s) for s in self._sources())

    def _sources(self) -> list[str]:
        return [s for j in self.judges.values() for n in j.programs if (s := getattr(j.rule, n)) is not None]

    @cached_property
    def keep(self) -> dict[str, int]:
        """Entity kind -> ms that an entry is needed by any rule's window (merging included); without lateness and horizon."""
        spans = {kind: max((j.span for j in judges), default=0) for kind, judges in self.by_kind.items()}
        spans["receiver"] = self.merge_within
        return spans

    def kind(self, kind: str) -> Judges:
        """The rules that ask this kind of entity."""
        judges = self._kinds.get(kind)
        if judges is None:
            judges = self._kinds[kind] = Judges(self.by_kind.get(kind, []), self.merge_within if kind == "receiver" else 0)
        return judges

    @cached_property
    def kinds(self) -> frozenset[str]:
        """Entity kinds that the rules of this pack ask."""
        return frozenset(self.by_kind)

    @cached_property
    def known(self) -> frozenset[str]:
        """Entity kinds that an order's keys are made for: an account's in any case."""
        return self.kinds | {"user"}

    def absent(
        self, asked: frozenset[str], unseen: frozenset[str], *, converted: bool, unmapped: bool, late: bool
    ) -> tuple[str, ...]:
        """Rules that find nothing to judge in an order, sorted. asked: kinds of entities that it has; unseen: of `strict` those
        that see none of them. converted: money was converted; unmapped: an article is not known; late: no windows.
        """
        case = (asked, unseen, converted, unmapped, late)
        found = self._absent.get(case)
        if found is None:
            out = {j.id for j in self.asking if asked.isdisjoint(j.kinds)} | unseen
            if not converted:
                out -= {j.id for j in self.by_kind.get("pair", ())}
            if unmapped:
                out |= {j.id for j in self.by_kind.get("sku", ())}
            if late:
                out |= {j.id for j in self.asking if j.windowed}
            found = tuple(sorted(out))
            _keep(self._absent, case, found)
        return found

    def among(self, kind: str, rules: frozenset[str]) -> tuple[str, ...]:
        """Those of these rules that ask a kind of entity, sorted."""
        case = (kind, rules)
        found = self._among.get(case)
        if found is None:
            found = tuple(sorted(j.id for j in self.by_kind.get(kind, ()) if j.id in rules))
            _keep(self._among, case, found)
        return found

    @cached_property
    def least(self) -> dict[str, int]:
        """Entity kind -> how sure its keys must be at least (`identity.RANK`) for any rule to see them; less sure ones are not told."""
        return {"receiver": LIKELY, **{kind: min(j.least for j in judges) for kind, judges in self.by_kind.items()}}

    @cached_property
    def strict(self) -> list[Judge]:
        """Rules that need surer keys than others on the same kind: an entity may be told of that they do not see."""
        return [j for j in self.asking if any(j.least > self.least[kind] for kind in j.kinds)]

    def stricter(self, kind: str, confidence: int) -> tuple[str, ...]:
        """The rules on a kind of entity that do not see a key as little sure as this."""
        at = (kind, confidence)
        found = self._stricter.get(at)
        if found is None:
            found = self._stricter[at] = tuple(j.id for j in self.by_kind.get(kind, ()) if j.least > confidence)
        return found

    def weight(self, rule_id: str) -> int:
        rule = self.rules[rule_id]
        return rule.weight if rule.weight is not None else self.policy.levels[rule.level].weight

    def encode(self) -> bytes:
        """The pack as one JSON record, for rules.packs."""
        return msgspec.json.encode({"policy": self.policy, "rules": self.rules}, order="deterministic")

    @classmethod
    def decode(cls, data: bytes) -> Pack:
        """The pack of a record that `encode` made. Raises PackError."""
        try:
            content = msgspec.json.decode(data, type=_Content)
        except msgspec.DecodeError as error:
            raise PackError(f"the published pack cannot be read: {error}") from error
        return cls(content.policy, content.rules)

    def without(self, *rule_ids: str) -> Pack:
        """The same pack with these rules to tag-only: another version. Raises PackError for a rule that is not there."""
        strange = [r for r in rule_ids if r not in self.rules]
        if strange:
            raise PackError(f"{self.version} has no rule {', '.join(strange)}")
        off = {r: msgspec.structs.replace(self.rules[r], tag_only=True) for r in rule_ids}
        return Pack(self.policy, {**self.rules, **off})


MAX_CASES = 10_000
"""Answers that a pack remembers: orders differ in few ways, and nobody has promised it."""

_Case = TypeVar("_Case")


def _keep(known: dict[_Case, tuple[str, ...]], case: _Case, found: tuple[str, ...]) -> None:
    if len(known) >= MAX_CASES:
        known.clear()
    known[case] = found


class _Content(msgspec.Struct, forbid_unknown_fields=True):
    policy: Policy
    rules: dict[str, Rule]


def load(folder: Path) -> Pack:
    """Reads a pack folder: policy.yaml and one YAML a rule. Raises PackError."""
    if not (folder / "policy.yaml").is_file():
        raise PackError(f"{folder}: no policy.yaml there")
    policy = _read(folder / "policy.yaml", Policy)
    rules: dict[str, Rule] = {}
    for path in sorted(folder.glob("*.yaml")):
        if path.name == "policy.yaml":
            continue
        rule = _read(path, Rule)
        if rule.id != path.stem:
            raise PackError(f"{path.name}: its id is {rule.id!r}; a rule's file bears its id")
        rules[rule.id] = rule
    if not rules:
        raise PackError(f"{folder}: no rules there")
    return Pack(policy, rules)


def load_all(folders: list[Path]) -> list[Pack]:
    """The packs of one or several folders (a folder of packs is each of them), by `active_from`. Raises PackError."""
    found: list[Path] = []
    for folder in folders:
        inside = [folder] if (folder / "policy.yaml").is_file() else sorted(p.parent for p in folder.glob("*/policy.yaml"))
        if not inside:
            raise PackError(f"{folder}: neither a pack (policy.yaml) nor a folder of packs")
        found += inside
    return sorted((load(folder) for folder in found), key=lambda p: (p.active_from, p.version))


class _Loader(yaml.SafeLoader):
    """A key given twice is an error, and `on` is the word `on`: YAML 1.1 takes it for true."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
            if key.value == "on":
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


def _read(path: Path, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(yaml.load(path.read_text(encoding="utf-8"), _Loader), kind)  # noqa: S506  a safe loader
    except (yaml.YAMLError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise PackError(f"{path.name}: {' '.join(str(error).split())}") from error


def _compile(rule: str, name: str, source: str) -> cel.Program:
    try:
        return cel.compile(source)
    except ValueError as error:
        raise PackError(f"{rule}.yaml: {name}: {' '.join(str(error).split())}") from error


def _check(rule: Rule) -> None:
    """What the shape of the file cannot say: which words go together."""

    def need(condition: bool, why: str) -> None:
        if not condition:
            raise PackError(f"{rule.id}.yaml: {why}")

    if rule.within not in (None, DAY_WINDOW):
        try:
            duration(rule.within)
        except ValueError as error:
            raise PackError(f"{rule.id}.yaml: within: {error}") from error
    if rule.on == "order":
        need(rule.when is not None, "a rule on the order needs `when`")
        need(
            rule.within is None and rule.measure is None and rule.profile is None, "`within`, `measure`, `profile` need an entity"
        )
        need(rule.marks == "newest", "a rule on the order marks that order only")
        need(rule.members is None and not rule.needs and rule.sharing is None, "`members`, `needs`, `sharing` need an entity")
        need(rule.confidence == "likely", "`confidence` needs an entity")
    else:
        need(bool(rule.on), "`on` names no entity")
        open_kinds = OPEN_KINDS.intersection(rule.on)
        need(
            rule.confidence == "likely" or not open_kinds,
            f"`confidence` is of people and places, not of {', '.join(sorted(open_kinds))}",
        )
        need(rule.when is None, "`when` is for a rule on the order; an entity's rule has `measure` or `profile`")
        need(rule.measure is not None or rule.profile is not None, "needs `measure` or `profile`")
        need((rule.measure is None) == (rule.within is None), "`measure` and `within` go together")
        remembers = "history" in rule.needs
        need(not remembers or (rule.measure is None and rule.profile is not None), "`history` is for a rule with a profile alone")
        need(not (rule.marks == "all" and rule.profile), "a rule with a profile marks the newest only")
        need(not (rule.sharing and rule.measure is None), "`sharing` needs a measure")
        words = [w for w in ("value", "limit", "detail") if getattr(rule, w) is not None]
        need(not words or rule.profile is not None, f"`{', '.join(words)}` of an entity's rule reads what its `profile` reads")
    for action in rule.actions or ():
        if action.lasts is not None:
            try:
                duration(action.lasts)
            except ValueError as error:
                raise PackError(f"{rule.id}.yaml: actions: lasts: {error}") from error
    strange = {m for text in (rule.explain.zh, rule.explain.en) for m in _PLACE.findall(text)} - {
        "value",
        "limit",
        "orders",
        "detail",
    }
    need(not strange, f"explain names {{{', '.join(sorted(strange))}}}: it may use value, limit, orders, detail")
    measure = rule.measure
    if measure is not None:
        chosen = [m for m in (measure.count, measure.sum, measure.distinct, measure.nearest) if m is not None]
        need(len(chosen) == 1, "a measure is one of count, sum, distinct, nearest")
        need((measure.at_least is None) != (measure.above is None), "a measure needs one of at_least, above")
        need(measure.sum != "units" or rule.on == ("sku",), "`sum: units` is of a sku")
        need((measure.sum == "total") == (measure.currency is not None), "`sum: total`, and it alone, names its currency")
        need(rule.marks == "newest" or measure.count is not None or measure.distinct is not None, "`marks: all` counts")
        need(not rule.sharing or measure.count is not None, "`sharing` counts")
    need(any("fired" in e.expect.values() for e in rule.examples), "needs an example that fires")
    need(any("silent" in e.expect.values() for e in rule.examples), "needs an example that stays silent")
