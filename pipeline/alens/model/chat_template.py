"""The chat template of a tokenizer: messages -> the text that the model was trained to see.

In: a loaded model and messages with role and content. Out: one text, with its special tokens. Templates are Jinja that came
with the model; transformers runs them in its sandbox, and no other code of the model's repository is run.
"""

from collections.abc import Mapping, Sequence

from alens.errors import RequestError
from alens.model.libraries import quiet, refusing
from alens.model.models import LoadedModel

ASSISTANT = "assistant"


def check(model: LoadedModel) -> None:
    """Raises `RequestError` where the tokenizer of the model has no template."""
    if not model.fast_tokenizer.chat_template:
        raise RequestError(
            f"the tokenizer in {model.source.folder} has no chat template: give prompts as plain text, or the tokenizer "
            "of a chat model"
        )


def applied(
    model: LoadedModel, messages: Sequence[Mapping[str, str]], source: str, *, answer: bool = True
) -> str:
    """The text of a conversation. `source` is what messages call it.

    With `answer` it ends where the model is to go on: after the header of an answer or, where the last message is by the
    assistant, within that message. Raises `RequestError` where there is no template, or it refuses the messages.
    """
    check(model)
    goes_on = answer and messages[-1]["role"] == ASSISTANT
    with quiet(), refusing(f"the chat template in {model.source.folder} refuses {source}"):
        text = model.fast_tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tokenize=False,
            add_generation_prompt=answer and not goes_on,
            continue_final_message=goes_on,
        )
    return str(text)
