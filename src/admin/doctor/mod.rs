//! Why two modules do not talk: ten layers in their order, until the first that fails.
//!
//! Separate code examines each layer, so that the report can name the one that fails: a channel
//! reports name, TCP, TLS and HTTP/2 in one text.

mod engines;
mod layers;
mod peer;
mod refusals;
mod report;
mod roster;

pub use peer::Options;
pub use report::{Diagnosis, Layer, Row, Side, State, Visit};

use std::path::Path;

use super::error::Refused;
use crate::clock::{Age, Clock as _, SystemClock};
use crate::config::names::OWN_KEY;
use crate::config::{LoadError, Settings, replacing};
use crate::diagnostic::{Code, CommandLine, Severity, redact};
use crate::grpc::cause;
use peer::{Doctor, is_target};
use report::{Help, Live};

/// Examines what the module of `settings` can reach: its DPM, or, if it is one, itself and its
/// engines.
///
/// Connects and calls as the module does, changes nothing, and never panics because of an answer.
/// `show` is called with the diagnosis at each layer that is added.
///
/// # Errors
///
/// When no peer fits [`Options::peer`].
pub async fn examine(
    settings: &Settings,
    options: &Options,
    show: &dyn Fn(&Diagnosis),
) -> Result<Diagnosis, Refused> {
    let module = match settings.module() {
        Ok(module) => module,
        Err(error) => {
            let failed = Row::fail(Layer::OwnKey, Side::Here, cause(&error));
            return Ok(Diagnosis::of_own(vec![config(settings), failed]));
        }
    };
    let doctor = Doctor {
        settings,
        module,
        options,
    };
    let name = options.peer.as_deref().unwrap_or("dpm");
    let is_dpm = settings.own.module.as_str() == "dpm";
    let mut connections = settings.options.client.connections.iter();
    let connection = connections.find(|known| doctor.is_called(known, name));
    let peers = match connection.filter(|known| !is_dpm || known.name != "dpm") {
        Some(connection) => {
            let targets = connection.targets();
            let one = targets.clone().find(|target| is_target(target, name));
            let wanted = targets.filter(|target| one.is_none_or(|one| one == *target));
            wanted.map(|target| doctor.to(connection, target)).collect()
        }
        None if is_dpm => doctor.itself().map(|peer| vec![peer]),
        None => return Err(engines::no_such_peer(name)),
    };
    let peers = match peers {
        Err(row) => return Ok(Diagnosis::of_own(vec![row])),
        Ok(peers) => peers,
    };
    let live = Live::new(vec![config(settings), key(settings)], show);
    let mut is_reached = false;
    for (peer, left) in peers.iter().zip((0..peers.len()).rev()) {
        if peer.deployment.is_none() {
            engines::visits(peer, &live).await?;
        } else {
            // Of several addresses one is enough.
            is_reached |= engines::visit(peer, &live, is_reached || left > 0).await;
        }
    }
    Ok(live.end())
}

/// Makes the row of settings that can be used.
fn config(settings: &Settings) -> Row {
    let mut found = settings.findings.iter();
    if let Some(trusted_again) = found.find(|found| found.code == Code::Cs0210) {
        let failed = Row::fail(Layer::Config, Side::Here, trusted_again.to_string());
        return failed.helps(trusted_again.help.clone());
    }
    let file = settings.home.file.display();
    let problems = match settings.findings.warnings() {
        0 => "0 problems".to_owned(),
        1 => "1 warning".to_owned(),
        more => format!("{more} warnings"),
    };
    Row::ok(Layer::Config, format!("{file}, {problems}"))
}

/// Makes the row of the key that the module signs with.
fn key(settings: &Settings) -> Row {
    let (own, now) = (&settings.own, SystemClock.now());
    let mut key = own.key_id.to_string();
    if let Some(name) = &own.name {
        key.extend([" of ", name.as_str()]);
    }
    if let Some(age) = own.key.made_at().and_then(|made| Age::between(made, now)) {
        key.extend([" (age ", &age.to_string(), ")"]);
    }
    Row::ok(Layer::OwnKey, key)
}

/// Returns the diagnosis of a module whose settings cannot be used: `file` holds them.
pub fn unusable(error: &LoadError, file: &Path) -> Diagnosis {
    // A key that was given in place of the home is not shown.
    let name = redact(&file.display().to_string());
    let Some(findings) = error.findings() else {
        let help = if file.is_file() {
            let list = CommandLine::new("ls -l").arg(file);
            Help::new("let this user read it:", list)
        } else {
            "`--home` takes a module's folder, with `etc/application.properties` in it, or such a file"
                .into()
        };
        let row = Row::fail(Layer::Config, Side::Here, redact(&cause(error)));
        return Diagnosis::of_own(vec![row.help(help)]);
    };
    let errors = findings.iter().filter(|f| f.severity == Severity::Error);
    let (own, other): (Vec<_>, Vec<_>) = errors.partition(|f| f.key.as_deref() == Some(OWN_KEY));
    let (layer, found) = if other.is_empty() {
        (Layer::OwnKey, own)
    } else {
        (Layer::Config, other)
    };
    let detail = match found.as_slice() {
        [] => String::new(),
        [one] => one.to_string(),
        [first, more @ ..] => format!("{first} (and {} more)", more.len()),
    };
    let explain = found.first().map(|first| first.code.explain());
    let is_key = layer == Layer::OwnKey;
    let failed = Row::fail(layer, Side::Here, detail)
        .helps(is_key.then(|| {
            let replace = replacing(file, &[]);
            Help::new("if the key that its peers trust is lost:", replace)
        }))
        .help(CommandLine::new("countersign check").arg(file))
        .helps(explain);
    let config = is_key.then(|| Row::ok(Layer::Config, name));
    Diagnosis::of_own(config.into_iter().chain([failed]).collect())
}
