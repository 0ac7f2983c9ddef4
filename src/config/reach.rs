//! Addresses: what is listened on, advertised and dialled, and what of it needs TLS.

use std::net::IpAddr;

use crate::diagnostic::{Code, Severity, quote};
use crate::properties::Sourced;

use super::check::Purpose;
use super::options::Options;
use super::own::is_loopback;
use super::read::Reader;

const ADDRESS: &str = "countersign.server.address";
const PORT: &str = "ataccama.server.grpc.port";
const PLAINTEXT: &str = "countersign.server.allow-plaintext";
const HOSTNAME: &str = "ataccama.one.dpe.service.hostname";
const ADVERTISED_PORT: &str = "ataccama.one.dpe.service.port";
const AUTHENTICATE: &str = "ataccama.authentication.grpc.internal.jwt.enable";
const CLIENT_HOST: &str = "ataccama.client.connection.<c>.host";

/// Reports addresses that do not fit, and plaintext that would leave this machine.
pub(super) fn check(reader: &mut Reader<'_>, options: &Options, purpose: Purpose) {
    listener(reader, options);
    if purpose == Purpose::Run {
        open(reader, options);
    }
    advertised(reader, options);
    dialled(reader, options, purpose);
}

fn report(reader: &mut Reader<'_>, name: &str, at: &Sourced, message: String, help: &str) {
    let found = reader.finding(Code::Cs0307, at, message);
    reader.findings.push(found.with_key(name).with_help(help));
}

fn listener(reader: &mut Reader<'_>, options: &Options) {
    let server = &options.server;
    if server.address.is_loopback() {
        return;
    }
    let Some(at) = reader.raw(ADDRESS, &[]).cloned() else {
        return;
    };
    if !options.tls.server.on && !server.allow_plaintext {
        let message = format!(
            "the gRPC port would be open on {} without TLS",
            server.address
        );
        let help = "turn TLS on (`countersign pair --tls`), write `countersign.server.address=127.0.0.1`, or, where the network is trusted, `countersign.server.allow-plaintext=true`";
        report(reader, ADDRESS, &at, message, help);
    }
    if !server.authenticate {
        let at = reader.raw(AUTHENTICATE, &[]).cloned().unwrap_or(at);
        let message = format!(
            "the gRPC port would be open to everybody on {}",
            server.address
        );
        report(
            reader,
            AUTHENTICATE,
            &at,
            message,
            "write `true`, or listen on `127.0.0.1` alone",
        );
    }
}

/// Says at every start what somebody allowed and should not forget.
fn open(reader: &mut Reader<'_>, options: &Options) {
    let server = &options.server;
    let beyond = !server.address.is_loopback();
    let mut warn = |name, message: String, help| {
        if let Some(at) = reader.raw(name, &[]).cloned() {
            let found = reader.finding(Code::Cs0307, &at, message);
            let found = found.with_severity(Severity::Warning).with_key(name);
            reader.findings.push(found.with_help(help));
        }
    };
    if beyond && server.allow_plaintext && !options.tls.server.on {
        warn(
            PLAINTEXT,
            format!("the gRPC port is open on {} without TLS", server.address),
            "everybody on that network can read and use the tokens; use TLS where it is not trusted",
        );
    }
    if !beyond && !server.authenticate {
        warn(
            AUTHENTICATE,
            "callers need not prove who they are: every process of this machine may call"
                .to_owned(),
            "write `true`, or remove the setting",
        );
    }
}

fn advertised(reader: &mut Reader<'_>, options: &Options) {
    let server = &options.server;
    if let Some(host) = reader.text(HOSTNAME, &[])
        && !serves(server.address, host.text())
    {
        let message = format!(
            "{} is advertised, but the gRPC port is open on {} only",
            quote(host.text()),
            server.address
        );
        let help =
            "set `countersign.server.address` to an address that serves it, such as `0.0.0.0`";
        report(reader, HOSTNAME, &host, message, help);
    }
    let port_known = reader.raw(PORT, &[]).is_some();
    if let Some(port) = options.engine.port
        && port_known
        && port != server.port
        && let Some(at) = reader.text(ADVERTISED_PORT, &[])
    {
        let message = format!(
            "port {port} is advertised, but the gRPC port is {}",
            server.port
        );
        let help = "remove the setting: the bound port is advertised by itself";
        report(reader, ADVERTISED_PORT, &at, message, help);
    }
}

/// Tells whether a listener on `address` can be reached at `host`, as far as names tell.
fn serves(address: IpAddr, host: &str) -> bool {
    if address.is_unspecified() {
        return true;
    }
    if address.is_loopback() {
        return is_loopback(host);
    }
    match host.parse::<IpAddr>() {
        Ok(advertised) => advertised == address,
        Err(_) => !is_loopback(host),
    }
}

fn dialled(reader: &mut Reader<'_>, options: &Options, purpose: Purpose) {
    for connection in &options.client.connections {
        let keys = [connection.name.clone()];
        let secured = options.client.allow_plaintext || options.tls.is_on(&connection.name);
        if secured || is_loopback(&connection.host) {
            continue;
        }
        let Some(at) = reader.text(CLIENT_HOST, &keys) else {
            continue;
        };
        let is_address = connection.host.parse::<IpAddr>().is_ok();
        // A name may lead back to this machine; who connects finds out.
        let severity = match (is_address, purpose) {
            (true, _) => Severity::Error,
            (false, Purpose::Check) => Severity::Warning,
            (false, Purpose::Run) => continue,
        };
        let message = format!("{} would be dialled without TLS", quote(&connection.host));
        let found = reader.finding(Code::Cs0307, &at, message);
        let found = found
            .with_severity(severity)
            .with_key(CLIENT_HOST.replace("<c>", &connection.name));
        reader.findings.push(found.with_help(
            "turn TLS on (`countersign pair --tls`), or, where the network is trusted, write `countersign.client.allow-plaintext=true`",
        ));
    }
}
