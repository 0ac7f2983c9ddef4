//! CS0405: does TLS fit between two files, whichever calls the other?

use crate::config::inspect::Inspected;
use crate::config::parts::ReadDeployment;
use crate::config::tls::{DIAL_BACK, Side};
use crate::diagnostic::{Code, Finding};
use crate::grpc::tls::{ClientAuth, ClientTlsOptions};
use crate::jose::Fingerprint;

/// Compares the connection of `this` that leads to `other` with the server of `other`.
pub(super) fn check(this: &Inspected, other: &Inspected) -> Vec<Finding> {
    let connection = match this.leads_to(other) {
        Some(connection) => connection,
        // An engine that registers there is dialled back from there.
        None if other.leads_to(this).is_some_and(|back| back == "dpm") => DIAL_BACK.to_owned(),
        None => return Vec::new(),
    };
    let Some(client) = this.options.tls.clients.get(&connection) else {
        return Vec::new();
    };
    let found = match (client.on, other.options.tls.server.on) {
        (false, false) => [None, None],
        (true, true) => [
            server_pin(this, other),
            client_pin(this, other, client, &connection),
        ],
        _ => [one_side(this, other, client, &connection), None],
    };
    found.into_iter().flatten().collect()
}

/// TLS on one side only.
fn one_side(
    this: &Inspected,
    other: &Inspected,
    client: &Side<ClientTlsOptions>,
    connection: &str,
) -> Option<Finding> {
    let (file, at, calls, serves) = if client.on {
        (this, &client.at, "with", "without")
    } else {
        (other, &other.options.tls.server.at, "without", "with")
    };
    let message = format!(
        "connection `{connection}` of {} is {calls} TLS, but the server of {} is {serves} it",
        this.shown_path(),
        other.shown_path()
    );
    let help = "turn TLS on or off on both sides; `countersign pair --tls` turns it on for both";
    Some(file.report(Code::Cs0405, at.as_ref()?, message, help))
}

/// Does `this` pin the certificate that the server of `other` shows?
fn server_pin(this: &Inspected, other: &Inspected) -> Option<Finding> {
    let (deployment, _) = this.trusted(other.own.as_ref()?)?;
    let server = other.options.tls.server.options.as_ref()?;
    missing_pin(this, deployment, other, server.own.fingerprint().ok()?)
}

/// Does `other` pin the certificate that `this` shows when it calls?
fn client_pin(
    this: &Inspected,
    other: &Inspected,
    side: &Side<ClientTlsOptions>,
    connection: &str,
) -> Option<Finding> {
    let (deployment, _) = other.trusted(this.own.as_ref()?)?;
    let server = other.options.tls.server.options.as_ref()?;
    let client = side.options.as_ref()?;
    let is_asked = match server.client_auth {
        None => other.deployments.iter().any(|read| !read.pins.is_empty()),
        Some(auth) => auth != ClientAuth::None,
    };
    let (here, there) = (this.shown_path(), other.shown_path());
    match &client.own {
        Some(own) if is_asked => {
            let shown = own.fingerprint().ok()?;
            if !deployment.pins.is_empty() || server.trust.is_some() {
                return missing_pin(other, deployment, this, shown);
            }
            let message = format!("{here} calls with a certificate that is not pinned here");
            let at = other.options.tls.server.at.as_ref()?;
            let name = &deployment.name;
            let help =
                format!("write `countersign.deployments.{name}.tls-keys.key.fingerprint={shown}`");
            Some(other.report(Code::Cs0405, at, message, help))
        }
        None if is_asked && server.client_auth != Some(ClientAuth::Optional) => {
            let message = format!(
                "the server of {there} requires a client certificate, but connection `{connection}` does not present one"
            );
            let at = side.cert_chain_at.as_ref().or(side.at.as_ref())?;
            let start = &client.settings;
            let help = format!("set `{start}.cert-chain` and `{start}.private-key`");
            Some(this.report(Code::Cs0405, at, message, help))
        }
        _ => None,
    }
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
        owner.shown_path(),
        deployment.name
    );
    let setting = first.at.setting().unwrap_or_default();
    let help = format!("write `{setting}={shown}`");
    Some(holder.report(Code::Cs0405, &first.at, message, help))
}
