"""Which weights of a pretrained network a training changes: a family, one file a member.

Start with `transfer`, which states the promise; `partial` holds the members that freeze parts of the network, `lora`
the one that trains small matrices beside it.
"""

from poise.training.transfer.lora import LoRA
from poise.training.transfer.partial import Head, Last, Probe
from poise.training.transfer.transfer import Transfer, Whole

__all__ = ["Head", "Last", "LoRA", "Probe", "Transfer", "Whole"]
