"""A check of whether the Hugging Face hub can be reached."""

from huggingface_hub import model_info


def why_unreachable(model: str) -> Exception | None:
    """The reason why the hub does not give a model; None where it does.

    It is one request, since without a network a download asks again and again for half a minute.

    Args:
        model: Hub id, owner/name.
    """
    try:
        model_info(model, timeout=10)
    # Without a network httpx, with HF_HUB_OFFLINE or an unknown model huggingface_hub: the cache may still have it.
    except Exception as error:
        return error
    return None
