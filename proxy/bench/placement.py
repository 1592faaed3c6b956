"""`comfy-cluster bench --placement`: what the rules of the line come to, and what one placement costs.

The loads run on a virtual clock and are the same for every order; the costs are this machine's.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from time import process_time

from backend_pool.books.share import Share
from backend_pool.placement.line import Line
from backend_pool.placement.values import Kind, Policy, Spot, Waiting
from proxy.bench.outcome import Outcome, outcome
from proxy.bench.simulation import Load, Simulation, Task

MODELS = {"flux": 15.0, "sdxl": 8.0, "wan": 25.0}
POLICIES = {
    "fair": Policy(),
    "fair, no warmth": Policy(affinity_s=0.0),
    "turns": Policy("turns"),
    "fifo": Policy("fifo"),
}
UNLIMITED = 1_000_000
ROUNDS = 2000
LENGTHS = (100, 1000, 10_000, 100_000)
SPOTS = 8


@dataclass(frozen=True)
class Crowd:
    """A load by its numbers. Users prefer one model each, and take another one in five times."""

    users: int = 30
    spots: int = 8
    jobs: int = 60
    """Of each user."""
    weights: tuple[float, ...] = (1.0,)
    """Users have these in turn."""
    run_s: tuple[float, float] = (3.0, 12.0)
    models: bool = True
    running_limit: int = 2
    light: int = 0
    """Users who come with one job now and then, with a model of their own choice."""
    seed: int = 1

    @property
    def light_users(self) -> frozenset[int]:
        """Their ids."""
        return frozenset(range(self.users, self.users + self.light))

    def load(self, *, limited: bool) -> Load:
        """The same tasks for every order; plain FIFO knows no limits."""
        chance = random.Random(self.seed)  # noqa: S311 - a load, no secret
        tasks = [task for user in range(self.users) for task in self._busy(user, chance)]
        until_s = self.users * self.jobs * sum(self.run_s) / 2 / self.spots
        tasks += [task for user in self.light_users for task in self._now_and_then(user, until_s, chance)]
        tasks.sort(key=lambda task: task.arrives_s)
        shares = {
            user: Share(
                weight=self.weights[user % len(self.weights)],
                running_limit=self.running_limit if limited else UNLIMITED,
            )
            for user in range(self.users + self.light)
        }
        numbered = [task.numbered(seq) for seq, task in enumerate(tasks, 1)]
        return Load(numbered, self.spots, shares, MODELS)

    def _busy(self, user: int, chance: random.Random) -> Iterable[Task]:
        for _ in range(self.jobs):
            yield self._task(user, chance.uniform(0, 30), chance)

    def _now_and_then(self, user: int, until_s: float, chance: random.Random) -> Iterable[Task]:
        for moment in range(5):
            yield self._task(user, (moment + chance.random()) * until_s / 5, chance)

    def _task(self, user: int, arrives_s: float, chance: random.Random) -> Task:
        names = list(MODELS)
        liked = names[user // len(self.weights) % len(names)]
        model = liked if chance.random() < 0.8 else chance.choice(names)
        run_s = chance.uniform(*self.run_s)
        expected_s = run_s * chance.uniform(0.7, 1.4)
        return Task(0, user, arrives_s, run_s, frozenset({model} if self.models else ()), expected_s)


LOADS = {
    "30 users, 8 backends, 3 models": Crowd(),
    "the same, weights 1:2:4": Crowd(weights=(1.0, 2.0, 4.0), jobs=120),
    "one user with 9,000 jobs, 5 light ones": Crowd(users=1, jobs=9000, running_limit=8, light=5),
}


def simulate(crowd: Crowd, policy: Policy) -> Outcome:
    """One load under one policy."""
    load = crowd.load(limited=policy.order != "fifo")
    return outcome(load, Simulation(load, policy).run(), crowd.light_users)


def simulations() -> str:
    """Every load under every policy, as a table."""
    head = f"{'':18}{'hours':>7}{'busy':>7}{'loading':>9}{'loads':>7}{'Jain':>7}{'error':>7}"
    head += f"{'p50':>7}{'p95':>7}{'light':>7}"
    lines = []
    for name, crowd in LOADS.items():
        lines += [name, head]
        for title, policy in POLICIES.items():
            got = simulate(crowd, policy)
            lines.append(
                f"  {title:16}{got.makespan_s / 3600:7.2f}{got.busy:7.1%}{got.loading:9.1%}{got.loads:7}"
                f"{got.jain:7.3f}{got.error:7.1%}{got.wait_p50_s:7.0f}{got.wait_p95_s:7.0f}{got.light_wait_s:7.0f}"
            )
        lines.append("")
    return "\n".join(lines)


def filled(jobs: int, users: int, kinds: int) -> Line:
    """A line of so many jobs."""
    line = Line(Policy())
    alike = _kinds(kinds)
    chance = random.Random(jobs)  # noqa: S311 - a load, no secret
    for seq in range(1, jobs + 1):
        line.add(Waiting(seq, seq % users, seq, chance.choice(alike), expected_s=chance.uniform(2, 9)))
    return line


def turn_over(line: Line, jobs: int, users: int, kinds: int, rounds: int) -> None:
    """So many times: one backend is idle and gets a job, the job ends, another comes."""
    alike = _kinds(kinds)
    spots = [Spot(key, alike[key % kinds].models) for key in range(SPOTS)]
    for seq in range(jobs + 1, jobs + rounds + 1):
        choice = line.next([spots[seq % SPOTS]], seq)
        if choice is not None:
            line.started(choice.seq, choice.spot, seq)
            line.ended(choice.seq, 4.0)
        line.add(Waiting(seq, seq % users, seq, alike[seq % kinds], expected_s=5.0))


def cost_us(jobs: int, users: int, kinds: int, rounds: int) -> float:
    """Microseconds of processor time of one placement in such a line: next, started, ended, and a job that comes."""
    line = filled(jobs, users, kinds)
    began = process_time()
    turn_over(line, jobs, users, kinds, rounds)
    return (process_time() - began) / rounds * 1e6


def _kinds(count: int) -> list[Kind]:
    return [Kind(frozenset(range(SPOTS)), frozenset({f"model-{number}"})) for number in range(count)]


def costs() -> str:
    """A table of them."""
    lines = [f"{'jobs':>8}{'users':>8}{'kinds':>7}{'µs':>8}"]
    for most, kinds in ((10, 6), (1000, 6), (30, 60)):
        for jobs in LENGTHS:
            users = min(most, jobs)
            cost = cost_us(jobs, users, kinds, ROUNDS)
            lines += [f"{jobs:8}{users:8}{kinds:7}{cost:8.0f}"]
    return "\n".join(lines)


def report() -> str:
    """Both, with what the columns mean."""
    return (
        "Loads on a virtual clock. busy, loading: part of the backends' time; loads: jobs that loaded a model;\n"
        "error: largest distance of a user's GPU time from the one due by weight; p50, p95: waits in seconds;\n"
        "light: the longest wait of a user who comes now and then.\n\n"
        f"{simulations()}\nOne placement (next, started, ended, and a job that comes), {ROUNDS} of each:\n{costs()}"
    )
