"""The workflows of a forge: what actionlint and zizmor cannot know of this project."""

import re
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[2]
WORKFLOWS = PROJECT / ".github" / "workflows"
PINNED = re.compile(r"^ +uses: ([\w./-]+)@([0-9a-f]{40}) # v\d+\.\d+\.\d+$")


def workflow(name: str) -> dict[str, Any]:
    """Return a workflow."""
    read: dict[str, Any] = yaml.safe_load((WORKFLOWS / f"{name}.yml").read_text("utf-8"))
    return read


def text_of(name: str) -> str:
    """Return the text of a workflow."""
    return (WORKFLOWS / f"{name}.yml").read_text("utf-8")


def test_every_action_is_pinned_by_a_commit_and_one_action_has_one() -> None:
    """With its version behind it, which Dependabot reads and writes."""
    found: dict[str, set[str]] = {}
    for path in WORKFLOWS.iterdir():
        for line in path.read_text("utf-8").splitlines():
            if "uses:" in line and "./.github/" not in line:
                pinned = PINNED.fullmatch(line)
                assert pinned, line
                found.setdefault(pinned[1], set()).add(pinned[2])
    assert {action: len(hashes) for action, hashes in found.items()} == dict.fromkeys(found, 1)


def test_no_checkout_leaves_a_token_behind() -> None:
    """A checkout that asks for one is nothing that zizmor reports."""
    steps = [
        step
        for path in WORKFLOWS.iterdir()
        for job in workflow(path.stem)["jobs"].values()
        for step in job.get("steps", ())
        if step.get("uses", "").startswith("actions/checkout@")
    ]
    assert len(steps) == 4
    assert all(step["with"]["persist-credentials"] is False for step in steps)


def test_pushes_and_pull_requests_run_what_the_gate_runs() -> None:
    """The same script as everywhere else, without a right to write."""
    # YAML 1.1 reads the key `on` as true.
    assert set(workflow("test")[True]) == {"push", "pull_request", "workflow_call"}
    job = workflow("test")["jobs"]["test"]
    assert job["permissions"] == {"contents": "read"}
    assert job["steps"][-1]["run"].endswith("bash .ci/run")
    assert "scripts/test" in (PROJECT / ".ci" / "run").read_text("utf-8")


def test_a_release_is_built_only_after_the_tests_for_both_architectures() -> None:
    """And signed in a job that builds nothing; no other one can sign or write a release."""
    jobs = workflow("release")["jobs"]
    needs = {name: job.get("needs") for name, job in jobs.items()}
    assert needs == {
        "check": None,
        "test": "check",
        "amd64": "test",
        "arm64": "test",
        "publish": ["amd64", "arm64"],
    }
    built = {job["with"]["architecture"] for job in jobs.values() if "with" in job}
    assert built == {"amd64", "arm64"}
    for name, job in jobs.items():
        can_sign = "id-token" in job["permissions"]
        can_release = job["permissions"]["contents"] == "write"
        assert (can_sign, can_release) == (name == "publish", name == "publish")
    assert all("docker build " not in step.get("run", "") for step in jobs["publish"]["steps"])


def test_the_image_is_built_with_the_commit_and_compared_with_the_tag() -> None:
    """The labels of docs/compatibility.md."""
    text = text_of("build")
    assert '--build-arg "COMMIT=$GITHUB_SHA"' in text
    assert "org.opencontainers.image.version" in text
    assert text.index("--version") < text.index("docker push")


def test_the_image_is_built_so_that_it_can_be_built_again() -> None:
    """Both targets with the time of the commit, and without what only this build would have."""
    text = text_of("build")
    assert "SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)" in text
    assert '--build-arg "COMMIT=$GITHUB_SHA" --build-arg SOURCE_DATE_EPOCH' in text
    assert "--provenance=false --sbom=false" in text
    builds = [line.strip() for line in text.splitlines() if line.strip().startswith("docker build")]
    assert len(builds) == 2
    assert all('"${options[@]}"' in line for line in builds)


def test_a_release_has_what_the_documents_promise() -> None:
    """Notes with the digest, both lists of contents as files and attested, and both signatures."""
    steps = {
        it["name"]: it.get("run", "") for it in workflow("release")["jobs"]["publish"]["steps"]
    }
    published = steps["Publish"]
    assert "scripts.changelog" in published
    assert "'\\nImage: %s@%s\\n'" in published
    created = published[published.index("gh release create") : published.index(":latest")]
    for architecture in ("amd64", "arm64"):
        file = f"sbom-{architecture}.spdx.json"
        assert file in created
        attested = f'--predicate {file} \\\n  "$IMAGE@$DIGEST_{architecture.upper()}"'
        assert attested in steps["Sign, and attest the contents"]
    for digest in ("DIGEST", "DEBUG"):
        assert f'--recursive "$IMAGE@${digest}"' in steps["Sign, and attest the contents"]
    # The newest one is moved last: what is not signed and published is never the newest.
    assert published.index("gh release create") < published.index(":latest")
    names = [*steps]
    assert names.index("Sign, and attest the contents") < names.index("Publish")


def test_the_documented_identity_is_the_one_that_signs() -> None:
    """The certificate has the path of the workflow and the tag."""
    page = (PROJECT / "docs" / "upgrading.md").read_text("utf-8")
    (path,) = re.findall(r'"\^\$REPOSITORY/(\S+)@refs/tags/v"', page)
    assert (PROJECT / path.replace("\\", "")).is_file()
    assert workflow("release")[True] == {"push": {"tags": ["v*"]}}
    assert "cosign sign --yes --recursive" in text_of("release")
    # An annotated tag is an object of its own, and the certificate has the commit.
    assert "^{commit}" in page
