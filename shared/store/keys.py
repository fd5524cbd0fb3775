"""Every key the gateway keeps in Redis, one function each.

`keys.ready("chat", "1", "direct")` → `gw:{pool}:ready:chat:1:direct`. Each says what type it has,
which module owns it, how long it lives and what it holds; `markdown_table()` prints that. A test
scans the database after the integration run: every key matches a function here, and every key that
is not "kept" has a time to live.

The pool's keys share the hash tag `{pool}`, so that one script may touch several of them in a
cluster. Scripts build the names of records from the same templates (see `scripts.py`: `K_READY` is
`gw:{pool}:ready:`), so a name is written once.
"""

import re
from typing import Final

KEPT: Final = "kept"

ALL: list["Key"] = []


class Key:
    """One family of keys; calling it with its parts gives a name. The parts come last in it."""

    def __init__(self, template: str, *, type: str, owner: str, ttl: str, holds: str) -> None:
        self.template = template
        self.type = type
        self.owner = owner
        self.ttl = ttl
        self.holds = holds
        self.prefix = template.partition("<")[0]
        self.parts = template.count("<")
        pattern = re.sub(r"<[a-z_]+>", "(.+)", re.escape(template).replace("\\<", "<"))
        self.pattern = re.compile(pattern.replace("\\>", ">"), re.DOTALL)
        ALL.append(self)

    def __call__(self, *parts: str) -> str:
        if len(parts) != self.parts:
            raise TypeError(f"{self.template} has {self.parts} parts, not {len(parts)}")
        return self.prefix + ":".join(parts)

    @property
    def kept(self) -> bool:
        return self.ttl == KEPT

    def matches(self, name: str) -> bool:
        return self.pattern.fullmatch(name) is not None


# What a script that touches the pool names as its only key: it decides the node in a cluster.
POOL: Final = "gw:{pool}"
# The same for the steps that are due: they need not lie on the pool's node.
DUE: Final = "gw:{due}"

# And for stored responses.
RESPONSES: Final = "gw:{responses}"
# And for API keys.
API_KEYS: Final = "gw:{keys}"

# And for settings changed while the fleet runs.
SETTINGS: Final = "gw:{settings}"

# And for the ledger.
LEDGER: Final = "gw:{ledger}"

# Channels, not keys. A process with waiters listens on its own; its messages are waiters.
WAKE_CHANNEL: Final = "gw:wake:"
# Its messages are accounts whose login has just ended, well or not.
LOGIN_CHANNEL: Final = "gw:logins"

# -- the store itself
schema = Key(
    "gw:{pool}:schema",
    type="string",
    owner="store",
    ttl=KEPT,
    holds="integer: the layout of everything below; a start refuses a newer one",
)
serial = Key(
    "gw:{pool}:serial",
    type="string",
    owner="leases",
    ttl=KEPT,
    holds="integer that only grows: fences, generations of accounts, tickets of the queue",
)

# -- accounts
account = Key(
    "gw:{pool}:account:<account>",
    type="hash",
    owner="accounts",
    ttl=KEPT,
    holds="one account: state, sealed secrets, slots in use, cooldowns (fields: lua/pool.lua)",
)
accounts = Key(
    "gw:{pool}:accounts",
    type="zset",
    owner="accounts",
    ttl=KEPT,
    holds="every account, score 0: pages in alphabetical order",
)
state = Key(
    "gw:{pool}:state:<state>",
    type="zset",
    owner="accounts",
    ttl=KEPT,
    holds="account → end of its longest cooldown in ms (0 = none): counts by state",
)
imported = Key(
    "gw:{pool}:imported",
    type="hash",
    owner="accounts",
    ttl=KEPT,
    holds="account → fingerprint of the `ACCOUNTS` entry it was last imported from, deleted or not",
)

# -- leases
ready = Key(
    "gw:{pool}:ready:<capability>:<tier>:<egress>",
    type="zset",
    owner="leases",
    ttl=KEPT,
    holds="account with a free slot → ready at ms; tier 1 is signed in, tier 2 must log in first",
)
egresses = Key(
    "gw:{pool}:egresses:<capability>:<tier>",
    type="zset",
    owner="leases",
    ttl=KEPT,
    holds="egress with accounts in `ready` → the later of its best account and its rest, ms",
)
busy = Key(
    "gw:{pool}:busy:<capability>",
    type="zset",
    owner="leases",
    ttl=KEPT,
    holds="account whose slots are all lent → when it would be ready if one came back, ms",
)
rest = Key(
    "gw:{pool}:rest:<egress>",
    type="string",
    owner="leases",
    ttl="the rest",
    holds="`<until ms>:<reason>`: the firewall refuses this egress address",
)
leases = Key(
    "gw:{pool}:leases",
    type="zset",
    owner="leases",
    ttl=KEPT,
    holds="lease token → expires at ms",
)
lent = Key(
    "gw:{pool}:lent",
    type="hash",
    owner="leases",
    ttl=KEPT,
    holds="lease token → `<capability>:<generation>:<account>`",
)
attempts = Key(
    "gw:{pool}:attempts:<window>",
    type="string",
    owner="limits",
    ttl="30 s",
    holds="first attempts of the fleet in one window of 10 s: what the retry budget is measured by",
)

# -- the queue for a busy pool
queue = Key(
    "gw:{pool}:queue:<capability>",
    type="zset",
    owner="waiters",
    ttl="1 h",
    holds="waiter (its future lease token) → its ticket",
)
process = Key(
    "gw:{pool}:process:<process>",
    type="string",
    owner="waiters",
    ttl="3 s",
    holds="this process has waiters and lives",
)

# -- logins
login = Key(
    "gw:{pool}:login:<account>",
    type="string",
    owner="logins",
    ttl="the login, 30 s past its start",
    holds="fence of the login under way",
)
login_refused = Key(
    "gw:{pool}:login_refused:<account>",
    type="string",
    owner="logins",
    ttl="the pause after a failed login",
    holds="why the last login failed",
)
login_slot = Key(
    "gw:{pool}:login_slot:<egress>",
    type="string",
    owner="logins",
    ttl="until that moment",
    holds="the moment the next login may start through this egress, ms",
)

# -- batches
batches = Key(
    "gw:{pool}:batches",
    type="zset",
    owner="batches",
    ttl=KEPT,
    holds="batch → when it was put down, ms; those older than 30 d leave with the next one",
)
batch = Key(
    "gw:{pool}:batch:<batch>",
    type="hash",
    owner="batches",
    ttl="30 d (1 h while its lines are read)",
    holds="kind, state, counters, times",
)
batch_lines = Key(
    "gw:{pool}:batch_lines:<batch>",
    type="hash",
    owner="batches",
    ttl="30 d (1 h while its lines are read)",
    holds="line → JSON of its e-mail, its status and a message",
)
batch_inputs = Key(
    "gw:{pool}:batch_inputs:<batch>",
    type="hash",
    owner="batches",
    ttl="30 d; 7 d from its batch's end",
    holds="line → its account, sealed; gone when the line has succeeded",
)
batch_failed = Key(
    "gw:{pool}:batch_failed:<batch>",
    type="zset",
    owner="batches",
    ttl="30 d after the last",
    holds="`<line>:<egress>` that failed → line",
)
batch_tries = Key(
    "gw:{pool}:batch_tries:<batch>",
    type="hash",
    owner="batches",
    ttl="30 d after the last",
    holds="line → how often its login failed for a reason that may pass",
)
batch_recent = Key(
    "gw:{pool}:batch_recent:<batch>",
    type="list",
    owner="batches",
    ttl="30 d after the last",
    holds="the newest 20 lines that ended",
)
batch_lanes = Key(
    "gw:{pool}:batch_lanes:<batch>",
    type="zset",
    owner="batches",
    ttl="30 d (1 h while its lines are read)",
    holds="egress with waiting lines → when to look at them, ms",
)
batch_waiting = Key(
    "gw:{pool}:batch_waiting:<batch>:<egress>",
    type="zset",
    owner="batches",
    ttl="30 d after the last",
    holds="line that waits → its number; one that waits again → until when, ms",
)
batch_rotation = Key(
    "gw:{pool}:batch_rotation",
    type="zset",
    owner="batches",
    ttl=KEPT,
    holds="batch with waiting lines → when it was last served (`serial`): the first is next",
)
batch_running = Key(
    "gw:{pool}:batch_running",
    type="zset",
    owner="batches",
    ttl=KEPT,
    holds="`<batch>:<line>` that is claimed → until when, ms; `BATCH_LOGIN_CONCURRENCY` at most",
)
batch_claims = Key(
    "gw:{pool}:batch_claims",
    type="hash",
    owner="batches",
    ttl=KEPT,
    holds="`<batch>:<line>` that is claimed → `<fence>:<egress>`",
)
batch_outcomes = Key(
    "gw:{pool}:batch_outcomes",
    type="hash",
    owner="batches",
    ttl=KEPT,
    holds="outcome → lines of all batches that ended so: the metric `batch_lines`",
)
login_pace = Key(
    "gw:{pool}:login_pace:<egress>",
    type="string",
    owner="batches",
    ttl="10 min after the last refusal",
    holds="`<ms>:<until ms>`: the upstream wants logins of batches this far apart here",
)

# -- API keys
api_keys = Key(
    "gw:{keys}:records",
    type="hash",
    owner="api_keys",
    ttl=KEPT,
    holds="key id (an HMAC of the key) → its record as JSON; the key itself is nowhere",
)
api_key_used = Key(
    "gw:{keys}:used",
    type="hash",
    owner="api_keys",
    ttl=KEPT,
    holds="key id → last used, epoch seconds, at most a minute old",
)
api_keys_version = Key(
    "gw:{keys}:version",
    type="string",
    owner="api_keys",
    ttl=KEPT,
    holds="integer, grows with every change: what makes processes forget what they cached",
)

fingerprint_keys = Key(
    "gw:{keys}:fingerprints",
    type="hash",
    owner="fingerprints",
    ttl=KEPT,
    holds="what ids are made with: its id → the key, sealed; `first` → the id of the one in use",
)

# -- settings
settings = Key(
    "gw:{settings}:values",
    type="hash",
    owner="settings",
    ttl=KEPT,
    holds="setting → its stored value as JSON, sealed where it is a secret",
)
settings_version = Key(
    "gw:{settings}:version",
    type="string",
    owner="settings",
    ttl=KEPT,
    holds="the moment of the newest change: what makes processes read them anew",
)
settings_audit = Key(
    "gw:{settings}:audit",
    type="list",
    owner="settings",
    ttl=KEPT,
    holds="the newest 1,000 changes: `<epoch seconds> <JSON of who, what, from, to>`",
)

# -- limits
rate = Key(
    "gw:rate:<key>",
    type="string",
    owner="limits",
    ttl="until the allowance is full again",
    holds="GCRA: the moment the allowance will be full again, microseconds",
)
again = Key(
    "gw:{pool}:again:<window>",
    type="string",
    owner="limits",
    ttl="30 s",
    holds="further attempts of the fleet in one window of 10 s",
)
again_second = Key(
    "gw:{pool}:again_second:<second>",
    type="string",
    owner="limits",
    ttl="5 s",
    holds="further attempts of the fleet in one second",
)

# -- the model list
models = Key(
    "gw:{models}:list",
    type="string",
    owner="cache",
    ttl=KEPT,
    holds="the upstream's model list as it was last read",
)
models_fresh = Key(
    "gw:{models}:fresh",
    type="string",
    owner="cache",
    ttl="`MODELS_CACHE_TTL`",
    holds="present while that list needs no refresh",
)
models_claim = Key(
    "gw:{models}:claim",
    type="string",
    owner="cache",
    ttl="30 s",
    holds="who reads the list from the upstream now; `failed`: nobody for 5 s",
)

# -- idempotency
idempotent = Key(
    "gw:idempotent:<owner>:<key>",
    type="hash",
    owner="idempotency",
    ttl="30 s while it runs, 24 h once answered",
    holds="body hash, and the runner's token or the answer",
)


# -- stored responses
response = Key(
    "gw:{responses}:record:<id>",
    type="hash",
    owner="responses",
    ttl="30 d",
    holds="owner, status; sealed: what was asked, what was answered, what is still to be run",
)
responses_owned = Key(
    "gw:{responses}:owned:<owner>",
    type="zset",
    owner="responses",
    ttl="30 d after the last",
    holds="response → when it was stored, ms",
)
responses_sizes = Key(
    "gw:{responses}:sizes:<owner>",
    type="hash",
    owner="responses",
    ttl="30 d after the last",
    holds="response → its bytes; `total` → their sum, bounded: the oldest give way",
)

# -- the ledger: what became of every request
ledger_written = Key(
    "gw:{ledger}:written:<process>",
    type="string",
    owner="ledger",
    ttl="1 d after the last",
    holds="number of the process's newest write: one that is sent again is skipped",
)
ledger_sums = Key(
    "gw:{ledger}:sums:<by>:<day>",
    type="hash",
    owner="ledger",
    ttl="until the day (since 1970) is 90 days old",
    holds="account, key id or model → `requests input output failures` of that UTC day",
)
ledger_keys = Key(
    "gw:{ledger}:keys",
    type="hash",
    owner="ledger",
    ttl=KEPT,
    holds="key id → the name the API key had when it was last used",
)
ledger_running = Key(
    "gw:{ledger}:running:<key>",
    type="hash",
    owner="allowances",
    ttl="30 s after the last",
    holds="turn of a key with limits → `<until ms> <tokens set aside> <1 = it runs>`",
)
ledger_requests = Key(
    "gw:{ledger}:requests",
    type="stream",
    owner="ledger",
    ttl=KEPT,
    holds="the newest 10,000 requests: when one ended (ms), and its record as JSON",
)
ledger_uses = Key(
    "gw:{ledger}:uses:<account>",
    type="list",
    owner="ledger",
    ttl="90 d after the last",
    holds="the account's newest 20 uses: `<ended at, ms> <JSON>`",
)
ledger_errors = Key(
    "gw:{ledger}:errors:<account>",
    type="list",
    owner="ledger",
    ttl="90 d after the last",
    holds="its newest 10 uses that failed, as above",
)

# -- steps that are due
due = Key(
    "gw:{due}:at",
    type="zset",
    owner="due",
    ttl=KEPT,
    holds="step → when it is to be taken (again), ms",
)
due_steps = Key(
    "gw:{due}:steps",
    type="hash",
    owner="due",
    ttl=KEPT,
    holds="step → JSON of its job, its arguments (ids) and how long a taker may need",
)
due_tries = Key(
    "gw:{due}:tries",
    type="hash",
    owner="due",
    ttl=KEPT,
    holds="step → how often it was taken",
)
due_running = Key(
    "gw:{due}:running",
    type="zset",
    owner="due",
    ttl=KEPT,
    holds="step that a job process has begun → until when nobody else may, ms",
)
due_slots = Key(
    "gw:{due}:slots",
    type="hash",
    owner="due",
    ttl=KEPT,
    holds="periodic work → the slot it was last put down for",
)
due_failed = Key(
    "gw:{due}:failed",
    type="list",
    owner="due",
    ttl="7 d after the last",
    holds="the newest 100 steps given up, as JSON with their reason",
)
job_counts = Key(
    "gw:{due}:counts",
    type="hash",
    owner="counts",
    ttl=KEPT,
    holds="metric sample with labels → what job processes counted so far",
)


def find(name: str) -> Key | None:
    """The function that made `name`, if any."""
    return next((key for key in ALL if key.matches(name)), None)


def markdown_table() -> str:
    """The keys as a table for people."""
    rows = ["| key | type | owner | lives | holds |", "|---|---|---|---|---|"]
    rows += [f"| `{k.template}` | {k.type} | {k.owner} | {k.ttl} | {k.holds} |" for k in ALL]
    return "\n".join(rows) + "\n"
