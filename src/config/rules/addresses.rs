//! Addresses: what is listened on, advertised and dialled, and what of it needs TLS.

use std::net::IpAddr;

use crate::config::read::Reader;
use crate::config::settings::{Options, is_loopback};
use crate::diagnostic::{Code, Severity, quote};

const ADDRESS: &str = "countersign.server.address";
const PORT: &str = "ataccama.server.grpc.port";
const PLAINTEXT: &str = "countersign.server.allow-plaintext";
const HOSTNAME: &str = "ataccama.one.dpe.service.hostname";
const ADVERTISED_PORT: &str = "ataccama.one.dpe.service.port";
const AUTHENTICATE: &str = "ataccama.authentication.grpc.internal.jwt.enable";
const CLIENT_HOST: &str = "ataccama.client.connection.<c>.host";

/// Reports addresses that do not fit, and plaintext that would leave this machine.
pub fn check(reader: &mut Reader<'_>, options: &Options) {
    listener(reader, options);
    advertised(reader, options);
    dialled(reader, options);
}

/// Reports a port that would be open to too many, and warns of one that is on purpose.
fn listener(reader: &mut Reader<'_>, options: &Options) {
    let server = &options.server;
    let address = server.address;
    let beyond = !address.is_loopback();
    let plaintext = beyond && !options.tls.server.on;
    if plaintext && !server.allow_plaintext {
        let message = format!("the gRPC port would be open on {address} without TLS");
        let help = "turn TLS on (`countersign pair --tls`), write `countersign.server.address=127.0.0.1`, or, on a trusted network, `countersign.server.allow-plaintext=true`";
        report(reader, Severity::Error, &[ADDRESS], &message, help);
    } else if plaintext {
        let message = format!("the gRPC port is open on {address} without TLS");
        let help = "anyone on that network can read and use the tokens; use TLS unless you trust the network";
        report(reader, Severity::Warning, &[PLAINTEXT], &message, help);
    }
    if beyond && !server.authenticate {
        let message =
            format!("the gRPC port would accept calls without authentication on {address}");
        let help = "write `true`, or listen on `127.0.0.1` only";
        let names = [AUTHENTICATE, ADDRESS];
        report(reader, Severity::Error, &names, &message, help);
    } else if !server.authenticate {
        let message = "callers are not authenticated: every process on this machine can call";
        let help = "write `true`, or remove the setting";
        report(reader, Severity::Warning, &[AUTHENTICATE], message, help);
    }
}

/// Reports `message` at the first of `names` that has a value.
fn report(reader: &mut Reader<'_>, severity: Severity, names: &[&str], message: &str, help: &str) {
    if let Some(at) = names.iter().find_map(|name| reader.raw(name, &[])) {
        let found = reader.finding(Code::Cs0307, at, message).with_help(help);
        reader.push(found.with_severity(severity));
    }
}

fn advertised(reader: &mut Reader<'_>, options: &Options) {
    let (address, bound) = (options.server.address, options.server.port);
    if let Some(at) = reader.text(HOSTNAME, &[])
        && !serves(address, at.text())
    {
        let host = quote(at.text());
        let message = format!("{host} is advertised, but the gRPC port listens on {address} only");
        let help =
            "set `countersign.server.address` to an address that serves it, such as `0.0.0.0`";
        reader.report(Code::Cs0307, &at, message, help);
    }
    if let Some(port) = options.engine.port
        && reader.raw(PORT, &[]).is_some()
        && port != bound
        && let Some(at) = reader.text(ADVERTISED_PORT, &[])
    {
        let message = format!("port {port} is advertised, but the gRPC port is {bound}");
        let help = "remove the setting: countersign advertises the port that it listens on";
        reader.report(Code::Cs0307, &at, message, help);
    }
}

/// Returns `true` if a listener on `address` can be reached at `host`, as far as names show.
fn serves(address: IpAddr, host: &str) -> bool {
    match host.parse::<IpAddr>() {
        _ if address.is_unspecified() => true,
        _ if address.is_loopback() => is_loopback(host),
        Ok(advertised) => advertised == address,
        Err(_) => !is_loopback(host),
    }
}

fn dialled(reader: &mut Reader<'_>, options: &Options) {
    for connection in &options.client.connections {
        let secured = options.client.allow_plaintext || options.tls.is_on(&connection.name);
        if secured || is_loopback(&connection.host) {
            continue;
        }
        let Some(at) = reader.text(CLIENT_HOST, &[&connection.name]) else {
            continue;
        };
        // A name may lead back to this machine; the connection finds out.
        let severity = match connection.host.parse::<IpAddr>() {
            Ok(_) => Severity::Error,
            Err(_) => Severity::Warning,
        };
        let host = quote(&connection.host);
        let message = format!("{host} would be dialled without TLS");
        let help = "turn TLS on (`countersign pair --tls`), or, on a trusted network, write `countersign.client.allow-plaintext=true`";
        let found = reader.finding(Code::Cs0307, &at, message).with_help(help);
        reader.push(found.with_severity(severity));
    }
}
