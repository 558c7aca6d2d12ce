"""The documents as programs: their blocks, and a shell in which the commands are run."""

from nexus_devtools.documents.markdown import Block, Command, blocks_of, pages
from nexus_devtools.documents.play import Player
from nexus_devtools.documents.shell import Shell, ShellError

__all__ = ["Block", "Command", "Player", "Shell", "ShellError", "blocks_of", "pages"]
