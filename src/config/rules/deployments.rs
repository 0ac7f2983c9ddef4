//! The trusted deployments of one file, the connections to them, the module's own name and tokens
//! among theirs; what is listened on, advertised and dialled, and what of it needs TLS.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::thread;

use super::addresses::{ADDRESSES, HOST, has_addresses};
use super::keys;
use super::one_way::{is_for_dpe, unused};
use super::tls::{self, DIAL_BACK};
use crate::config::read::{Reader, first_below};
use crate::config::schema::{self, DEPLOYMENTS, GRPC_PORT};
use crate::config::settings::{Options, ReadDeployment, ReadKey, is_loopback};
use crate::config::view::Part;
use crate::diagnostic::{Code, Severity, quote};
use crate::identity::{DeploymentName, Environment, ModuleType, Role, Roles};
use crate::properties::name::{same, uniform};
use crate::token::Policy;
use crate::trust::Deployment;

pub const LIFETIME: &str = "ataccama.authentication.internal.jwt.generator.token-expiration";
pub const DEPLOYMENT: &str = "ataccama.one.platform.deployments.<name>";
pub const MODULE: &str = "ataccama.one.platform.deployments.<name>.module";
pub const ENVIRONMENT: &str = "ataccama.one.platform.deployments.<name>.environment";
pub const ROLES: &str = "ataccama.one.platform.deployments.<name>.security.roles";
pub const KEYS: &str = "ataccama.one.platform.deployments.<name>.security.jwt-keys";
const KEY: &str = "ataccama.one.platform.deployments.<name>.security.jwt-keys.<key>";
const SINGLE_USE: &str = "countersign.deployments.<name>.single-use-tokens";
const CONNECTIONS: [&str; 2] = [
    "ataccama.client.connection",
    "countersign.client.connection",
];
pub const CHOSEN: &str = "countersign.client.connection.<c>.deployment";
/// Modules to which the vendor's sample files have connections, and which are not countersign's.
const VENDORS: [&str; 3] = ["configservice", "mmm", "storage"];

/// Reads every deployment.
pub fn read(reader: &mut Reader<'_>, impersonation: &Role) -> Vec<ReadDeployment> {
    let names = reader.names(DEPLOYMENTS, &[]);
    colliding(reader, DEPLOYMENT, &[], &names);
    // Calls that arrive meanwhile go first.
    let all = names.into_iter().inspect(|_| thread::yield_now());
    all.map(|name| deployment(reader, name, impersonation))
        .collect()
}

/// Reports `names` at `place`, below the map keys `above`, that differ only in case or dashes.
fn colliding(reader: &mut Reader<'_>, place: &str, above: &[&str], names: &[&str]) {
    let mut seen = HashMap::new();
    for name in names.iter().copied() {
        let first = *seen.entry(uniform(name)).or_insert(name);
        if first != name {
            let keys = [above, &[name]].concat();
            let (first, second) = (quote(first), quote(name));
            let message = format!(
                "{first} and {second} differ only in case or dashes, so they are the same name"
            );
            let help = format!("write {first} everywhere, or rename one");
            reader.report_below(Code::Cs0304, (place, &keys), message, help);
        }
    }
}

fn deployment(reader: &mut Reader<'_>, name: &str, impersonation: &Role) -> ReadDeployment {
    let keys = &[name];
    let checked = DeploymentName::new(name).map_err(|error| {
        let message = format!("{} is not a deployment name: {error}", quote(name));
        let help = "use 1 to 40 letters, digits and dashes, and the same name in every file";
        reader.report_below(Code::Cs0301, (DEPLOYMENT, keys), message, help);
    });
    let module_type = module(reader, name);
    let named = reader.named(ENVIRONMENT, keys, "an environment", Environment::new);
    let (environment, environment_at) = named.unzip();
    let granted = roles(reader, name, impersonation);
    let keys_read = jwt_keys(reader, name);
    unnamed(reader, name, &keys_read);
    let pins = tls::pins(reader, name);
    let single_use_tokens = reader.switch(SINGLE_USE, keys);
    let required = checked.ok().zip(module_type);
    let deployment = required.map(|(name, module)| Deployment {
        name,
        module,
        environment,
        roles: granted,
        keys: keys_read.iter().map(|read| read.trusted.clone()).collect(),
        single_use_tokens,
        tls_pins: pins.iter().map(|(pin, _)| *pin).collect(),
    });
    ReadDeployment {
        name: name.to_owned(),
        environment: environment_at,
        keys: keys_read,
        pins,
        deployment,
    }
}

fn module(reader: &mut Reader<'_>, deployment: &str) -> Option<ModuleType> {
    let keys = &[deployment];
    let what = format!("deployment {} has no `module`", quote(deployment));
    let value = reader.required(MODULE, keys, what, "such as `dpe`")?;
    let parsed = ModuleType::new(value.text()).map_err(|error| {
        let message = format!("{} is not a module type: {error}", quote(value.text()));
        let help = "write only the type, such as `dpm` or `dpe`";
        reader.report(Code::Cs0301, &value, message, help);
    });
    parsed.ok()
}

fn roles(reader: &mut Reader<'_>, deployment: &str, impersonation: &Role) -> Roles {
    let keys = &[deployment];
    let elements = reader.list(ROLES, keys);
    let mut read = Vec::new();
    for element in &elements {
        match Role::new(element.text()) {
            Ok(role) => read.push(role),
            Err(error) => reader.wrong(ROLES, element, &format!("is not a role: {error}")),
        }
    }
    let any_wrong = read.len() < elements.len();
    let roles: Roles = read.into_iter().collect();
    if any_wrong || roles.contains(impersonation) {
        return roles;
    }
    let deployment = quote(deployment);
    let setting = schema::path(ROLES, keys).join(".");
    let help = format!("write `{setting}[0]={impersonation}`");
    if let Some(at) = elements.first() {
        let message = format!("deployment {deployment} lacks the role {impersonation}");
        reader.report(Code::Cs0303, at, message, help);
    } else {
        let message = format!("deployment {deployment} has no role");
        reader.report_below(Code::Cs0303, (ROLES, keys), message, help);
    }
    roles
}

fn jwt_keys(reader: &mut Reader<'_>, deployment: &str) -> Vec<ReadKey> {
    let names = reader.names(KEYS, &[deployment]);
    if names.is_empty() {
        let message = format!("deployment {} has no key", quote(deployment));
        let help = "add the peer's `security.jwt-keys.key.fingerprint` and `.content`, or let `countersign pair` write them";
        reader.report_below(Code::Cs0301, (DEPLOYMENT, &[deployment]), message, help);
        return Vec::new();
    }
    colliding(reader, KEY, &[deployment], &names);
    // Most have one; room for more would be most of what is held.
    let mut keys = Vec::with_capacity(names.len());
    keys.extend(
        names
            .iter()
            .filter_map(|name| keys::trusted(reader, deployment, name)),
    );
    if keys.len() == names.len()
        && keys.iter().all(|key| key.trusted.revoked)
        && let Some(first) = keys.first()
    {
        let message = format!("every key of deployment {} is revoked", quote(deployment));
        let found = reader.finding(Code::Cs0302, &first.at, message);
        let help = "add the deployment's new key, or remove the deployment";
        let setting = schema::path(KEYS, &[deployment]).join(".");
        reader.push(found.with_key(setting).with_help(help));
    }
    keys
}

/// CS0309: the key with which a deployment has more active ones than a token can name.
fn unnamed(reader: &mut Reader<'_>, deployment: &str, keys: &[ReadKey]) {
    let most = Deployment::MOST_ACTIVE_KEYS;
    // What the home remembers as revoked may be taken back.
    let mut active = keys
        .iter()
        .filter(|key| !key.trusted.revoked || key.remembered);
    if let Some(eighth) = active.nth(most) {
        let name = quote(deployment);
        let message = format!(
            "deployment {name} has more than {most} active keys, and a token can name only {most}: a module with another key refuses this one's calls"
        );
        let help =
            "write `is-revoked=true` for keys that are no longer used, or remove their lines";
        reader.report(Code::Cs0309, &eighth.at, message, help);
    }
}

/// Reports an own name that is a peer's too, tokens that peers refuse, and connections that do not
/// lead to exactly one deployment: to use one of those would fail.
pub fn check(reader: &mut Reader<'_>, options: &Options, deployments: &[ReadDeployment]) {
    own(reader, options, deployments);
    let known: HashSet<_> = deployments.iter().map(|d| uniform(&d.name)).collect();
    let mut by_module: HashMap<_, Vec<_>> = HashMap::new();
    for read in deployments.iter().filter_map(|d| d.deployment.as_ref()) {
        by_module
            .entry(read.module.as_str())
            .or_default()
            .push(read);
    }
    // One that cannot be read is reported already, and may be the one that is meant.
    let is_whole = deployments.iter().all(|d| d.deployment.is_some());
    let help = trusted(reader);
    let names = CONNECTIONS.map(|path| reader.names(path, &[]));
    for name in names.into_iter().flatten().collect::<BTreeSet<_>>() {
        if reader.is_set(CHOSEN, &[name]) {
            chosen(reader, name, &known, &help);
        } else if is_whole && name != DIAL_BACK {
            // Each engine is dialled back as its owner's.
            of_module(reader, name, by_module.get(name).map_or(&[], Vec::as_slice));
        }
    }
}

fn own(reader: &mut Reader<'_>, options: &Options, deployments: &[ReadDeployment]) {
    if let Some((name, at)) = &options.name {
        let own = uniform(name.as_str());
        if let Some(peer) = deployments.iter().find(|peer| uniform(&peer.name) == own) {
            let named = &peer.name;
            let message = format!(
                "the module's own name `{name}` is also the name of a deployment that it trusts"
            );
            let help = format!(
                "write the name that the peers use for this module; `{named}` is one of its peers"
            );
            reader.report(Code::Cs0304, at, message, help);
        }
    }
    let accepted = Policy::default().max_lifetime();
    let lifetime = options.policy.lifetime();
    if lifetime > accepted
        && let Some(at) = reader.text(LIFETIME, &[])
    {
        let (lifetime, accepted) = (lifetime.as_secs(), accepted.as_secs());
        let message = format!(
            "tokens would live {lifetime} s; by default, peers accept at most {accepted} s"
        );
        let help = format!(
            "write a number up to {accepted}, or raise `countersign.token.max-lifetime` at every peer"
        );
        let found = reader.finding(Code::Cs0306, &at, message).with_help(help);
        reader.push(found.with_severity(Severity::Warning));
    }
}

/// CS0106: the deployment that a connection names must be trusted.
fn chosen(reader: &mut Reader<'_>, connection: &str, known: &HashSet<String>, help: &str) {
    let Some(value) = reader.text(CHOSEN, &[connection]) else {
        return;
    };
    if !known.contains(&uniform(value.text())) {
        reader.findings.add(Code::Cs0106, || {
            let message = untrusted(value.text());
            let found = reader
                .view
                .about(Code::Cs0106, &value, Part::Value, message);
            found.with_help(help)
        });
    }
}

/// Says that no deployment `name` is trusted.
pub fn untrusted(name: &str) -> String {
    format!("there is no trusted deployment {}", quote(name))
}

/// Says which deployments are trusted.
pub fn trusted(reader: &Reader<'_>) -> String {
    match reader.names(DEPLOYMENTS, &[]).as_slice() {
        [] => "no deployment is trusted".to_owned(),
        all => format!("trusted deployments: {}", all.join(", ")),
    }
}

/// Returns `true` if nothing here dials `connection`: it leads to a module of the vendor's, and no
/// trusted deployment is one.
pub fn is_vendors(reader: &Reader<'_>, connection: &str) -> bool {
    if !VENDORS.contains(&&*uniform(connection)) || reader.is_set(CHOSEN, &[connection]) {
        return false;
    }
    let names = reader.names(DEPLOYMENTS, &[]).into_iter();
    let mut modules = names.filter_map(|name| reader.raw(MODULE, &[name]));
    !modules.any(|module| same(reader.resolve(module.text()).trim(), connection))
}

/// CS0301: a connection that names none must have exactly one of its module type, which are those
/// that are `read`. CS0305: nothing uses it.
fn of_module(reader: &mut Reader<'_>, connection: &str, read: &[&Deployment]) {
    let module = quote(connection);
    if is_vendors(reader, connection) {
        if !reader.question.is_run() {
            let message = format!(
                "this connection is not used: no trusted deployment is the vendor's {module}"
            );
            let help = "to use it, pair the two modules with `countersign pair`";
            reader.report_below(Code::Cs0305, (HOST, &[connection]), message, help);
        }
        return;
    }
    let fits: Vec<_> = read.iter().map(|d| format!("`{}`", d.name)).collect();
    let setting = CHOSEN.replace("<c>", connection);
    let (message, help) = match fits.as_slice() {
        [_] => return,
        [] => (
            format!("no trusted deployment has the module {module} of this connection"),
            format!("pair the two modules with `countersign pair`, or choose one: `{setting}=`"),
        ),
        several => (
            format!(
                "{} have the module {module} of this connection",
                several.join(" and ")
            ),
            format!("choose one: `{setting}=`"),
        ),
    };
    let family = if has_addresses(reader, connection) {
        "countersign"
    } else {
        "ataccama"
    };
    reader.findings.add(Code::Cs0301, || {
        let path = [family, "client", "connection", connection];
        let at = first_below(reader.view, reader.ours, &path);
        let found = reader.view.about(Code::Cs0301, &at, Part::Name, message);
        found.with_severity(Severity::Warning).with_help(help)
    });
}

pub const ADDRESS: &str = "countersign.server.address";
pub const SERVER_PLAINTEXT: &str = "countersign.server.allow-plaintext";
pub const CLIENT_PLAINTEXT: &str = "countersign.client.allow-plaintext";
pub const HOSTNAME: &str = "ataccama.one.dpe.service.hostname";
const ADVERTISED_PORT: &str = "ataccama.one.dpe.service.port";
const AUTHENTICATE: &str = "ataccama.authentication.grpc.internal.jwt.enable";

/// Reports addresses that do not fit, and plaintext that would leave this machine.
pub fn addresses(reader: &mut Reader<'_>, options: &Options) {
    let is_one_way = options.engine.one_way && is_for_dpe(reader);
    if is_one_way {
        unused(reader, [GRPC_PORT, ADDRESS, ADVERTISED_PORT]);
    } else {
        listener(reader, options);
        advertised(reader, options);
    }
    dialled(reader, options, is_one_way);
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
        report_first(reader, Severity::Error, &[ADDRESS], &message, help);
    } else if plaintext {
        let message = format!("the gRPC port is open on {address} without TLS");
        let help = "anyone on that network can read and use the tokens; use TLS unless you trust the network";
        report_first(
            reader,
            Severity::Warning,
            &[SERVER_PLAINTEXT],
            &message,
            help,
        );
    }
    if beyond && !server.authenticate {
        let message =
            format!("the gRPC port would accept calls without authentication on {address}");
        let help = "write `true`, or listen on `127.0.0.1` only";
        let names = [AUTHENTICATE, ADDRESS];
        report_first(reader, Severity::Error, &names, &message, help);
    } else if !server.authenticate {
        let message = "callers are not authenticated: every process on this machine can call";
        let help = "write `true`, or remove the setting";
        report_first(reader, Severity::Warning, &[AUTHENTICATE], message, help);
    }
}

/// Reports `message` at the first of `names` that has a value.
fn report_first(
    reader: &mut Reader<'_>,
    severity: Severity,
    names: &[&str],
    message: &str,
    help: &str,
) {
    if let Some(at) = names.iter().find_map(|name| reader.raw(name, &[])) {
        let found = reader.finding(Code::Cs0307, at, message).with_help(help);
        reader.push(found.with_severity(severity));
    }
}

/// What is advertised stands as it is: a mapped port, a sidecar or another network may lead here.
fn advertised(reader: &mut Reader<'_>, options: &Options) {
    let (address, bound) = (options.server.address, options.server.port);
    if let Some(at) = reader.text(HOSTNAME, &[]) {
        let host = quote(at.text());
        if is_unspecified(at.text()) {
            let message = format!("{host} is advertised, and no host can dial it");
            let help = "write the name or the address at which the DPM reaches this host";
            reader.report(Code::Cs0307, &at, message, help);
        } else if !serves(address, at.text()) {
            let message = format!("{host} is advertised; the gRPC port listens on {address} only");
            let help = "correct if a port mapping or a sidecar serves it; otherwise set `countersign.server.address` to an address that serves it, such as `0.0.0.0`";
            let found = reader.finding(Code::Cs0307, &at, message).with_help(help);
            reader.push(found.with_severity(Severity::Note));
        }
    }
    if let Some(port) = options.engine.port
        && let Some(at) = reader.text(ADVERTISED_PORT, &[])
    {
        let help = "remove the setting, and the gRPC port is advertised";
        if port == 0 {
            let message = "port 0 is advertised, and no host can dial it".to_owned();
            reader.report(Code::Cs0307, &at, message, help);
        } else if reader.raw(GRPC_PORT, &[]).is_some() && port != bound {
            let message = format!("port {port} is advertised; the gRPC port is {bound}");
            let help =
                format!("correct if a port mapping or a sidecar serves it; otherwise {help}");
            let found = reader.finding(Code::Cs0307, &at, message).with_help(help);
            reader.push(found.with_severity(Severity::Note));
        }
    }
}

fn is_unspecified(host: &str) -> bool {
    let address = host.parse::<IpAddr>();
    address.is_ok_and(|address| address.to_canonical().is_unspecified())
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

fn dialled(reader: &mut Reader<'_>, options: &Options, is_one_way: bool) {
    let advertised = reader.text(HOSTNAME, &[]);
    let is_local = options.server.address.is_loopback()
        && advertised.is_none_or(|host| is_loopback(host.text()));
    for connection in &options.client.connections {
        let name = &*connection.name;
        let mut written = reader.list(ADDRESSES, &[name]);
        if written.is_empty() {
            written.extend(reader.text(HOST, &[name]));
        }
        let targets = connection.targets().zip(&written);
        let away: Vec<_> = targets
            .filter(|(target, _)| !is_loopback(target.host()))
            .collect();
        if is_vendors(reader, name) {
            continue;
        }
        if let Some((target, at)) = away
            .first()
            .filter(|_| is_local && !is_one_way && name == "dpm")
        {
            let message = format!(
                "the DPM is on {}, but cannot dial back: the gRPC port is open on this host alone",
                quote(target.host())
            );
            let help = "write `countersign.server.address=0.0.0.0` and this host's name as `ataccama.one.dpe.service.hostname`, or let `countersign pair --address` do it";
            let found = reader.finding(Code::Cs0307, at, message).with_help(help);
            reader.push(found.with_severity(Severity::Warning));
        }
        if options.client.allow_plaintext || options.tls.is_on(name) {
            continue;
        }
        for (target, at) in away {
            // A name may lead back to this machine; the connection finds out.
            let is_error = target.host().parse::<IpAddr>().is_ok();
            let message = format!("{} would be dialled without TLS", quote(target.host()));
            let help = "turn TLS on (`countersign pair --tls`), or, on a trusted network, write `countersign.client.allow-plaintext=true`";
            let found = reader.finding(Code::Cs0307, at, message).with_help(help);
            reader.push(found.error_if(is_error));
        }
    }
}
