"""What a record says of predictions that another code made, and what that code's author declares about itself."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(min_length=1, max_length=200)]


class Declared(BaseModel):
    """Declarations of an author that predictions do not show. None: not declared. Nothing of it was checked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    paper: Text | None = None
    code: Text | None = None  # where it is, and its version
    memory: Text | None = None  # what it keeps of earlier images and how they are labelled, or "none"
    extra_data: Text | None = None  # that the stream does not have, or "none"
    extra_masks: Text | None = None  # saliency or proposals of other networks, or "none"
    checkpoint: Literal["last", "held-out", "test"] | None = None  # the images by which evaluated weights were chosen
    known_classes: bool | None = None  # it knows from the first step how many classes will come
    told_step: bool | None = None  # it is told at test time which step an image belongs to


class Foreign(BaseModel):
    """The part of a record that another code's predictions have."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    predictions: Literal["maps", "network"]  # label maps, or a network that was evaluated here
    digest: str  # SHA-256 over the labels of all pixels
    resized: int = Field(default=0, ge=0)  # label maps of another size than their masks
    declared: Declared = Declared()

    @property
    def words(self) -> str:
        """List what is declared, and what is not: `memory none, checkpoint last; not declared: extra data`."""
        values = self.declared.model_dump()
        given = [f"{_name(key)} {_text(value)}" for key, value in values.items() if value is not None]
        missing = [_name(key) for key, value in values.items() if value is None]
        return "; ".join(
            [*([", ".join(given)] if given else []), *([f"not declared: {', '.join(missing)}"] * bool(missing))]
        )


def _name(key: str) -> str:
    return key.replace("_", " ")


def _text(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
