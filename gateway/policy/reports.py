"""What is known of the parts that run apart from the loop: the resolver, and optional services."""

from gateway.model.frozen import frozen


@frozen
class ListReport:
    """What is known of a list of blocked names that is fetched.

    `names` is how many it has, `age` how old its copy is in seconds, None without one, and
    `problem` why it could not be fetched the last time, empty if it could.
    """

    url: str
    names: int
    age: int | None
    problem: str = ""


@frozen
class ResolverReport:
    """What is known of the gateway's own resolver.

    `asks` is a text about the resolvers that it asks, and how. `answers` is whether it does, and
    `problem` why not, or what else is wrong with it, with the `remedy`. With `others_answer`
    another program has its port. `starts` counts its processes, `questions` what they were asked,
    by how it was answered, and `blocks` the names that it blocks, `lists` among them.
    """

    asks: str
    answers: bool = False
    problem: str = ""
    remedy: str = ""
    others_answer: bool = False
    starts: int = 0
    blocks: int = 0
    questions: tuple[tuple[str, int], ...] = ()
    lists: tuple[ListReport, ...] = ()


@frozen
class ServiceReport:
    """What is known of an optional service.

    `is_running` is whether it does what it is for, and `problem` why not, or what else is wrong,
    with the `remedy`. `starts` counts its processes. `text` is a line for people.
    """

    name: str
    is_running: bool = False
    problem: str = ""
    remedy: str = ""
    starts: int = 0
    text: str = ""
