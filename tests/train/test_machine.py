"""The commit of a point is that of recscale's own checkout."""

import shutil
import subprocess

import recscale
from conftest import REPO
from recscale.train.machine import commit


def test_the_commit_is_that_of_the_own_checkout_else_none(tmp_path):
    head = subprocess.run(
        ["git", "-C", REPO, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    assert commit(REPO / "src/recscale") == head.stdout.strip()
    foreign = tmp_path / "foreign"
    package = foreign / "env/site-packages/recscale"
    package.mkdir(parents=True)
    shutil.copy(recscale.__file__, package)
    git = ["git", "-C", foreign, "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "foreign"]):
        subprocess.run([*git, *words], check=True)
    assert commit(package) is None  # a repository around an installed package is not recscale's
    vendored = foreign / "lib/src/recscale"
    vendored.mkdir(parents=True)
    assert commit(vendored) is None
