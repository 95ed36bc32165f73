"""`rcnn app`."""

import socket

import click

from rcnn_keras.cli.common import must_be_a_model, quiet_import
from rcnn_keras.presets import from_preset


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen at; 0.0.0.0 lets other machines in.",
)
@click.option(
    "--port", type=click.IntRange(1, 65535), help="By default the first free one from 7860 on."
)
def app(models: tuple[str, ...], host: str, port: int | None) -> None:
    """Open a page to try detectors on: drop a picture, move the thresholds, compare two models.

    \b
    Example:
      rcnn app blood_cells runs/first/best.keras --port 8000

    MODEL is a name that `rcnn presets` lists, or a .keras file; by default all the models that come
    with the package are there to choose from. The page needs no network, and sends nothing.
    """
    from rcnn_keras.preset_table import saved_models

    names = list(dict.fromkeys(models)) or list(saved_models())
    if not names:
        raise ValueError("this copy of the package has no trained models: name a .keras file")
    for name in names:
        must_be_a_model(name)
    _must_be_free(host, port)
    with quiet_import():
        from rcnn_keras.app import require_gradio, serve
    require_gradio()
    detectors = {}
    for name in names:
        click.echo(f"Loading {name}")
        detectors[name] = from_preset(name)
    serve(detectors, host, port)


def _must_be_free(host: str, port: int | None) -> None:
    """Raise OSError, before anything slow, unless a server can listen there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port or 0)[0]
        with socket.socket(family, kind, protocol) as place:
            place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            place.bind(address)
    except OSError as error:
        where = host if port is None else f"{host}, port {port}"
        raise OSError(f"cannot listen at {where}: {error.strerror}") from error
