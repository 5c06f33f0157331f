//! Who listens on an address that is in use? Told from /proc (proc(5)), as far as we may look.

use std::fs;
use std::path::Path;

use sockeye::BindAddr;

use crate::exit::escaped;

/// The process that holds the address, as `nginx (process 1234)`; `None` if it cannot be told.
pub(crate) fn of(address: &BindAddr) -> Option<String> {
    let socket = match address {
        BindAddr::Tcp(address) => listening_on(address.port())?,
        BindAddr::AllInterfaces { port } => listening_on(*port)?,
        BindAddr::Unix(path) => bound_to(path)?,
        _ => return None,
    };
    let link = format!("socket:[{socket}]");
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let process = entry.file_name().into_string().ok()?;
        process.parse::<u32>().ok()?;
        let open = fs::read_dir(entry.path().join("fd")).ok()?;
        let holds = open
            .flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == link.as_str()));
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        holds.then(|| format!("{} (process {process})", escaped(name.trim_end())))
    })
}

/// The inode of the socket that listens on a port, of either family.
fn listening_on(port: u16) -> Option<String> {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| {
            let table = fs::read_to_string(table).ok()?;
            table.lines().skip(1).find_map(|line| {
                let fields: Vec<&str> = line.split_ascii_whitespace().collect();
                let (local, state) = (fields.get(1)?, fields.get(3)?);
                let found = local.ends_with(&port) && *state == LISTEN;
                found.then(|| fields.get(9).map(ToString::to_string))?
            })
        })
}

/// The inode of the socket bound to a path.
fn bound_to(path: &Path) -> Option<String> {
    let table = fs::read_to_string("/proc/net/unix").ok()?;
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(6);
        let (inode, bound) = (fields.next()?, fields.next()?);
        (Path::new(bound) == path).then(|| inode.to_owned())
    })
}
