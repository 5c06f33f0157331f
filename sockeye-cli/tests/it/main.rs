//! The program as its users meet it: help, exit codes, stdout and stderr, and peers that no one here wrote.

mod admission;
mod authority;
mod bench;
mod connect;
mod exec;
mod faults;
mod files;
mod help;
mod mirror;
mod peers;
mod peers_of_connect;
mod peers_of_files;
mod peers_of_proxy_protocol;
mod peers_of_serve;
mod peers_of_starttls;
mod peers_of_tls;
mod ready;
mod serve;
mod support;
mod terminal;
mod tls;
mod under_load;
mod web;
