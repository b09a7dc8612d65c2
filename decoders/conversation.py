"""Which turns belong to one conversation."""


class Conversation:
    """Tells by the prompts whether a turn continues the conversation of the last one."""

    def __init__(self) -> None:
        self._prompt: list[int] = []

    def continues(self, prompt: list[int]) -> bool:
        """Whether `prompt` begins with the last call's prompt, and is longer.

        Always False where a template begins answers with a text, such as <think>, that it leaves
        out of earlier answers. Every turn is then a conversation of its own.

        >>> conversation = Conversation()
        >>> [conversation.continues(prompt) for prompt in ([5], [5, 6], [5, 6], [7, 6, 1])]
        [False, True, False, False]
        """
        before, self._prompt = self._prompt, prompt
        return len(prompt) > len(before) > 0 and prompt[: len(before)] == before
