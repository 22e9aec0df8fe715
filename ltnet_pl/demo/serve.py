"""The command ``demo``: the page on a port of this machine."""

from __future__ import annotations

import errno
import importlib.util
import ipaddress
import os
import socket
import tempfile
import warnings
from pathlib import Path
from typing import Any

from ltnet_pl import InputError


def demo(
    port: int = 7860,
    host: str = "127.0.0.1",
    weights: str | None = None,
    device: str = "cpu",
    depth_model: str | None = None,
    max_mb: int = 32,
    max_megapixels: float = 64,
    open_browser: bool = False,
) -> None:
    """Show a page in the browser on which a photograph's light is turned by hand.

    It runs until Ctrl-C, asks no other machine for anything (but for a --depth_model that must be fetched), and keeps uploads in
    a temporary folder that goes when it ends.

    Args:
        port: Port to listen on, 1 to 65535.
        host: Address to listen on; with 127.0.0.1 no other machine reaches the page, with 0.0.0.0 all do, without a password.
        weights: Run folder, checkpoint, or safetensors file; by default the weights in the package.
        device: Where to compute, e.g. cpu or cuda.
        depth_model: Model that estimates depth where a picture comes without (needs the extra photo): a folder, or a name on the
            Hugging Face Hub, from where it is fetched once; by default none.
        max_mb: Size in MiB that an upload may have.
        max_megapixels: Pixels that a photograph may have, in millions.
        open_browser: Whether to open the page in this machine's browser.

    Raises:
        InputError: If the extra demo is missing, the port is taken, or a value is outside its range.
    """
    if max_mb < 1:
        raise InputError(f"--max_mb {max_mb}: expected 1 or more: raise it")
    if not 0.01 <= max_megapixels <= 1000:
        raise InputError(f"--max_megapixels {max_megapixels:g}: expected 0.01 to 1000: correct it")
    require_extra("gradio", "demo", "`python -m ltnet_pl demo`")
    if depth_model is not None:
        require_extra("transformers", "photo", "--depth_model")
    check_port(host, port)
    quiet()
    from ltnet_pl.demo.inputs import readers
    from ltnet_pl.relight import Relighter

    relighter = Relighter.pretrained(device) if weights is None else Relighter.from_run(weights, device)
    with tempfile.TemporaryDirectory(prefix="ltnet_pl_demo_") as folder:
        # Gradio makes a folder of its own beside ours if it does not find this as it is imported
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder).resolve())
        from ltnet_pl.demo.page import build

        page = build(relighter, readers(depth_model, device), Path(folder), max_megapixels=max_megapixels)
        url = serve(page, host, port, max_mb, open_browser)
        print(f"{url} (Ctrl-C ends it)", flush=True)
        if not _private(host):
            print(f"--host {host}: every machine that reaches this one can use the page; there is no password", flush=True)
        page.block_thread()


def serve(page: Any, host: str, port: int, max_mb: float, open_browser: bool = False) -> str:
    """Put a page of `build` on a port, and return at once.

    Args:
        page: The page.
        host: Address to listen on.
        port: Port.
        max_mb: Size in MiB that an upload may have.
        open_browser: Whether to open it in this machine's browser.

    Returns:
        Its address.

    Raises:
        InputError: If the port is taken.
    """
    import gradio as gr

    # fonts of the visitor's system: the theme's own would be fetched
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            inbrowser=open_browser,
            prevent_thread_lock=True,
            share=False,
            quiet=True,
            show_error=False,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            mcp_server=False,
            # what a visitor holds is a few paths, but Gradio keeps a description of the page for each
            state_session_capacity=200,
            max_file_size=int(max_mb * 2**20),
            theme=theme,
            css_paths=Path(__file__).parent / "page.css",
        )
    except OSError as error:
        raise _taken(host, port) from error
    return str(url)


def quiet() -> None:
    """Keep Gradio from asking any other machine for anything, and from a remark on itself; before it is imported."""
    # Gradio 6.31 against pandas 3, when it counts how long requests wait
    warnings.filterwarnings("ignore", "'future.no_silent_downcasting' is deprecated", module="gradio")
    warnings.filterwarnings("ignore", "The copy keyword is deprecated", module="gradio")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_SHARE"] = "False"


def require_extra(package: str, extra: str, what: str) -> None:
    """Refuse what needs a package that is not installed.

    Raises:
        InputError: If it is not.
    """
    if importlib.util.find_spec(package) is None:
        raise InputError(
            f"{what} needs {package}, which is not installed; expected the extra {extra}: pip install 'ltnet_pl[{extra}]'"
        )


def check_port(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on, before anything is loaded.

    Raises:
        InputError: If something else listens there, or the system forbids it.
    """
    if not 1 <= port <= 65535:
        raise InputError(f"--port {port}: expected 1 to 65535: correct it")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise InputError(
            f"--host {host}: is no address ({error.strerror}); expected one of this machine, e.g. 127.0.0.1"
        ) from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise _taken(host, port) from error
        raise InputError(
            f"--host {host} --port {port}: cannot be listened on ({error.strerror}); expected an address of this machine and a "
            "port that you may use: name others, e.g. --host 127.0.0.1 --port 7860"
        ) from error


def _taken(host: str, port: int) -> InputError:
    other = port + 1 if port < 65535 else port - 1
    return InputError(
        f"--port {port}: another program listens there on {host}; expected a free one: stop it, or name another, e.g. "
        f"--port {other}"
    )


def _private(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
