"""nginx, as a server that answers every request with the same few bytes and does nothing else."""

from pathlib import Path


def command(directory):
    return ["nginx", "-p", directory, "-e", "stderr", "-c", f"{directory}/nginx.conf"]


def write_conf(words, port, answer):
    """Its port is in its configuration, and so is its answer."""
    directory = Path(words[-1]).parent
    Path(words[-1]).write_text(f"""daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 20000; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ {answer} }}
    }}
}}
""")
