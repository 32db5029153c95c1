"""Whether the Hugging Face hub can be asked."""

from huggingface_hub import model_info


def why_unreachable(model: str) -> Exception | None:
    """Why the hub does not know a model; None where it does.

    One request, since a download asks again and again for half a minute where there is no network.

    Args:
        model: A hub id, owner/name.
    """
    try:
        model_info(model, timeout=10)
    # Without a network httpx, with HF_HUB_OFFLINE or an unknown model huggingface_hub: the cache may still have it.
    except Exception as error:
        return error
    return None
