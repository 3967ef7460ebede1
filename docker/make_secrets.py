"""Write random secrets for docker-compose.yml to docker/secrets; those that are there stay. `make secrets` runs it.

The files may be read by everybody on this machine who may enter the folder, which only its owner may: compose mounts
them as they are, and the containers run as another user.
"""

from __future__ import annotations

import secrets
from pathlib import Path

FOLDER = Path(__file__).parent / "secrets"

REDIS = """\
requirepass {password}
save ""
appendonly no
maxmemory 192mb
maxmemory-policy allkeys-lru
"""


def write(folder: Path) -> list[str]:
    """Names of the files that were written."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o700)
    password = secrets.token_urlsafe(24)
    made = {
        ("redis_conf", "store_url"): (
            REDIS.format(password=password),
            f"redis://:{password}@redis:6379/0",
        ),
        ("token_keys",): (secrets.token_urlsafe(32),),
        ("grafana_password",): (secrets.token_urlsafe(16),),
    }
    written = []
    for names, texts in made.items():
        if all((folder / name).exists() for name in names):
            continue
        for name, text in zip(names, texts, strict=True):
            (folder / name).write_text(text)
            (folder / name).chmod(0o644)
            written.append(name)
    return written


if __name__ == "__main__":
    for each in write(FOLDER):
        print(f"wrote {FOLDER / each}")
