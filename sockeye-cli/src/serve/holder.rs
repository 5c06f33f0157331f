//! Who listens on an address that is in use? Told from /proc (proc(5)), as far as we may look.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;

use sockeye::BindAddr;

use crate::exit::escaped;

/// The process that holds the address, as `nginx (process 1234)`; `None` if it cannot be told.
pub(crate) fn of(address: &BindAddr) -> Option<String> {
    let socket = match address {
        BindAddr::Tcp(address) => listening_on(*address)?,
        BindAddr::AllInterfaces { port } => listening_on((Ipv6Addr::UNSPECIFIED, *port).into())?,
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
        if !holds {
            return None;
        }
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        Some(format!("{} (process {process})", escaped(name.trim_end())))
    })
}

/// The inode of the socket that listens on an address, or on all addresses if one of the two is the wildcard.
fn listening_on(asked: SocketAddr) -> Option<String> {
    const LISTEN: &str = "0A";
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| {
            let table = fs::read_to_string(table).ok()?;
            table.lines().skip(1).find_map(|line| {
                let fields: Vec<&str> = line.split_ascii_whitespace().collect();
                let local = parse_local(fields.get(1)?)?;
                let same = local.ip() == asked.ip()
                    || local.ip().is_unspecified()
                    || asked.ip().is_unspecified();
                let found = same && local.port() == asked.port() && *fields.get(3)? == LISTEN;
                found.then(|| fields.get(9).map(ToString::to_string))?
            })
        })
}

/// `0100007F:1B58`: the address in words of 32 bits, each in the machine's own byte order, and the port.
fn parse_local(text: &str) -> Option<SocketAddr> {
    let (words, port) = text.split_once(':')?;
    let mut bytes = Vec::new();
    for word in words.as_bytes().chunks(8) {
        let word = u32::from_str_radix(str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip: IpAddr = match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok()?.into(),
        _ => <[u8; 16]>::try_from(bytes).ok()?.into(),
    };
    Some(SocketAddr::new(
        ip.to_canonical(),
        u16::from_str_radix(port, 16).ok()?,
    ))
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
