//! CS0405: does TLS fit between two files, which way soever one calls the other?

use crate::diagnostic::{Code, Finding};
use crate::grpc::tls::{ClientAuth, OwnFiles};
use crate::jose::Fingerprint;
use crate::properties::Sourced;

use super::check::Inspected;
use super::cross_check::{leads_to, path, trusted};
use super::deployments::ReadDeployment;
use super::tls::{DIAL_BACK, Side};
use super::view::{Part, View, finding};

/// Holds the connection of `this` that leads to `other` against the server of `other`.
pub(super) fn check(this: &Inspected, other: &Inspected) -> Vec<Finding> {
    let connection = match leads_to(this, other) {
        Some(connection) => connection,
        // Who registers there is dialled back from there.
        None if leads_to(other, this).is_some_and(|back| back == "dpm") => DIAL_BACK.to_owned(),
        None => return Vec::new(),
    };
    let Some(client) = this.options.tls.clients.get(&connection) else {
        return Vec::new();
    };
    let server = &other.options.tls.server;
    if client.on != server.on {
        return Vec::from_iter(one_side(this, other, &connection));
    }
    let mut found = Vec::new();
    if client.on {
        found.extend(server_pin(this, other));
        found.extend(client_pin(
            this,
            other,
            client.cert_chain_at.as_ref(),
            &connection,
        ));
    }
    found
}

/// TLS on one side only.
fn one_side(this: &Inspected, other: &Inspected, connection: &str) -> Option<Finding> {
    let client = this.options.tls.clients.get(connection)?;
    let server = &other.options.tls.server;
    let word = |on: bool| if on { "with" } else { "without" };
    let message = format!(
        "connection `{connection}` of {} is {} TLS, the server of {} {} it",
        path(this),
        word(client.on),
        path(other),
        word(server.on)
    );
    let (view, at): (&View, Option<&Sourced>) = if client.on {
        (&this.view, client.at.as_ref())
    } else {
        (&other.view, server.at.as_ref())
    };
    let found = finding(Some(view), Code::Cs0405, at?, Part::Value, message);
    Some(
        found.with_help(
            "turn TLS on, or off, on both sides; `countersign pair --tls` does it for both",
        ),
    )
}

/// Does `this` pin the certificate that the server of `other` shows?
fn server_pin(this: &Inspected, other: &Inspected) -> Option<Finding> {
    let (deployment, _) = trusted(this, other.own.as_ref()?)?;
    let server = other.options.tls.server.options.as_ref()?;
    missing_pin(this, deployment, other, shown(&server.own)?)
}

/// Does `other` pin the certificate that `this` shows when it calls?
fn client_pin(
    this: &Inspected,
    other: &Inspected,
    at: Option<&Sourced>,
    connection: &str,
) -> Option<Finding> {
    let (deployment, _) = trusted(other, this.own.as_ref()?)?;
    let pinned = other.deployments.iter().any(|read| !read.pins.is_empty());
    let server = other.options.tls.server.options.as_ref()?;
    let client = this.options.tls.client(connection)?;
    let asked = match server.client_auth {
        None => pinned,
        Some(auth) => auth != ClientAuth::None,
    };
    let start = &client.settings;
    match &client.own {
        Some(own) if asked => {
            let shown = shown(own)?;
            if deployment.pins.is_empty() && server.trust.is_none() {
                let message = format!(
                    "{} calls with a certificate that is not pinned here",
                    path(this)
                );
                let at = other.options.tls.server.at.as_ref()?;
                let found = finding(Some(&other.view), Code::Cs0405, at, Part::Value, message);
                let name = &deployment.name;
                let setting = format!("countersign.deployments.{name}.tls-keys.key.fingerprint");
                return Some(found.with_help(format!("write `{setting}={shown}`")));
            }
            missing_pin(other, deployment, this, shown)
        }
        None if asked && server.client_auth != Some(ClientAuth::Optional) => {
            let message = format!(
                "the server of {} requires a client certificate, and connection `{connection}` shows none",
                path(other)
            );
            let side: &Side<_> = this.options.tls.clients.get(connection)?;
            let at = at.or(side.at.as_ref())?;
            let found = finding(Some(&this.view), Code::Cs0405, at, Part::Value, message);
            Some(found.with_help(format!(
                "set `{start}.cert-chain` and `{start}.private-key`"
            )))
        }
        _ => None,
    }
}

fn shown(files: &OwnFiles) -> Option<Fingerprint> {
    files.fingerprint().ok()
}

/// Reports that `holder` pins other certificates for `deployment` than the one with the key
/// `shown`, which `owner` has.
fn missing_pin(
    holder: &Inspected,
    deployment: &ReadDeployment,
    owner: &Inspected,
    shown: Fingerprint,
) -> Option<Finding> {
    let first = deployment.pins.first()?;
    if deployment.pins.iter().any(|pin| pin.fingerprint == shown) {
        return None;
    }
    let message = format!(
        "the certificate of {} has the key `{shown}`, which is not pinned here for {}",
        path(owner),
        deployment.name
    );
    let found = finding(
        Some(&holder.view),
        Code::Cs0405,
        &first.at,
        Part::Value,
        message,
    );
    let found = found.with_key(first.setting());
    Some(found.with_help(format!("write `{}={shown}`", first.setting())))
}
