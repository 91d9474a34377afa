"""Write docs/configuration.md from the definitions of the settings, or compare it with them."""

from pathlib import Path

from node.config.limits import Limits
from node.config.setting import Setting, settings_of
from node.config.settings import Settings
from scripts import arguments as script_arguments
from scripts import one_line

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "configuration.md"
HEAD = """\
# Configuration

`scripts/settings_doc` writes this file from the definitions in `node/config/`. Do not edit it.

## Settings

Each setting is a flag of `helium run`, an environment variable and a key of a TOML file
(`--config FILE`). The key is the flag's name with underscores. A flag overrides the environment,
the environment overrides the file, and the file overrides the default.

To give a list, repeat the flag, separate the values by commas in the environment
(`HELIUM_MODELS_DIR`: by colons), or write a TOML array. Relative paths in the file start from its
folder. `HELIUM_KEY_PASSPHRASE` unlocks an encrypted key; it has no flag and no key in the file.

| flag | environment | default | meaning |
| --- | --- | --- | --- |
"""
LIMITS = """
## Limits

Limits bound what peers can cost the node. They are set in the table `[limits]` of the TOML file
only; most nodes need none of them. "Per address" means one IPv4 address or one IPv6 /64, because
peer ids cost nothing. On loopback, where all peers share the address, it means per peer.

| key | default | range | meaning |
| --- | --- | --- | --- |
"""
EXAMPLE = """
## Example

```toml
data_dir = "/var/lib/helium"
announce = ["/dns4/node.example.org/tcp/4001"]
peers = ["/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW..."]
blob_gigabytes = 100

[limits]
max_connections = 600
submissions_per_minute = 60
```
"""


def document() -> str:
    """Return the text of docs/configuration.md."""
    settings = "".join(_row_of_setting(setting) for setting in settings_of(Settings))
    limits = "".join(_row_of_limit(setting) for setting in settings_of(Limits))
    return HEAD + settings + LIMITS + limits + EXAMPLE


def _row_of_setting(setting: Setting) -> str:
    default = f"`{setting.default_text}`" if setting.default_text else "none"
    unit = f" {setting.unit}" if setting.unit else ""
    text = setting.help.replace("<owner>/<name>", "`<owner>/<name>`")
    return f"| `{setting.flag}` | `{setting.variable}` | {default}{unit} | {text} |\n"


def _row_of_limit(setting: Setting) -> str:
    span = f"{setting.minimum:,} to {setting.maximum:,}"
    default = f"`{setting.default_text}` {setting.unit}"
    return f"| `{setting.name}` | {default} | {span} | {setting.help} |\n"


def main(arguments: list[str] | None = None) -> int:
    parser = script_arguments.Parser("scripts/settings_doc", own_help=False)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args(arguments).check:
        return int(TARGET.read_text(encoding="utf-8") != document())
    TARGET.write_text(document(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    one_line.run(main)
