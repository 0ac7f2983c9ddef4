//! Where a connection leads: `host:port`, once or several times.

use std::net::Ipv6Addr;

use crate::config::read::Reader;
use crate::diagnostic::Code;
use crate::engine::check_host;
use crate::grpc::Target;

pub const HOST: &str = "ataccama.client.connection.<c>.host";
pub const GRPC_PORT: &str = "ataccama.client.connection.<c>.grpc.port";
/// Where the modules of one deployment listen, in place of a host and a port.
pub const ADDRESSES: &str = "countersign.client.connection.<c>.addresses";
/// How many there may be: each is tried before a call is given up.
pub const MOST_ADDRESSES: usize = 16;

/// Returns `true` if the connection `name` has addresses in place of a host and a port.
pub fn has_addresses(reader: &Reader<'_>, name: &str) -> bool {
    let set = reader.names("countersign.client.connection.<c>", &[name]);
    set.contains(&"addresses")
}

/// Reads the addresses of a connection that has several; all of them or none.
pub fn several(reader: &mut Reader<'_>, name: &str) -> Vec<Target> {
    let keys = &[name];
    let written = reader.list(ADDRESSES, keys);
    let mut ends = [HOST, GRPC_PORT].into_iter();
    let other = ends.find(|end| reader.is_set(end, keys));
    let whole = ADDRESSES.replace("<c>", name);
    if !has_addresses(reader, name) {
        return Vec::new();
    } else if let Some(at) = other.and_then(|other| reader.raw(other, keys)) {
        let message = format!("`{whole}` is set too, and only one of the two can be used");
        let help = "keep the addresses, each with its port, or the host and the port";
        reader.report(Code::Cs0306, at, message, help);
    } else if written.is_empty() {
        let help = format!("write `{whole}=host:port,host:port`");
        let message = format!("`{whole}` names no address");
        reader.report_below(Code::Cs0306, (ADDRESSES, keys), message, help);
    } else if let Some(at) = written.get(MOST_ADDRESSES) {
        let why = format!("is one of more than {MOST_ADDRESSES} addresses");
        reader.wrong(ADDRESSES, at, &why);
        return Vec::new();
    }
    let mut all = Vec::new();
    for element in &written {
        match target(element.text()) {
            Err(why) => reader.wrong(ADDRESSES, element, &why),
            Ok(target) if all.contains(&target) => {
                reader.wrong(ADDRESSES, element, "is there twice");
            }
            Ok(target) => all.push(target),
        }
    }
    if all.len() == written.len() {
        all
    } else {
        Vec::new()
    }
}

/// Reads a host and its port; the error goes on from the value.
pub fn target(text: &str) -> Result<Target, String> {
    let form = "is not of the form `host:port`, with brackets around an IPv6 address";
    let (written, port) = text.rsplit_once(':').ok_or(form)?;
    let host = unbracketed(written);
    if host.contains(':') && host == written {
        return Err(form.to_owned());
    }
    check_host(host).map_err(|error| format!("has no valid host: {error}"))?;
    let digits = Some(port).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.map(str::parse) {
        Some(Ok(port @ 1..)) => Ok(Target::new(&host.to_ascii_lowercase(), port)),
        _ => Err("has no port from 1 to 65535 at its end".to_owned()),
    }
}

/// Returns an IPv6 address without the brackets that it has in a URL.
pub fn unbracketed(host: &str) -> &str {
    let inner = host.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    inner
        .filter(|host| host.parse::<Ipv6Addr>().is_ok())
        .unwrap_or(host)
}
