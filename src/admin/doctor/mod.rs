//! Why two modules do not talk: ten layers in their order, until the first that fails.
//!
//! Each layer is looked at by code of its own, so that the one that fails can be named: a channel
//! folds name, TCP, TLS and HTTP/2 into one text.

mod both_files;
mod clock;
mod engines;
mod health;
mod http2;
mod identity;
mod name;
mod not_ready;
mod own;
mod peer;
mod report;
mod role;
mod roll;
mod tcp;
mod tls;
mod visit;
mod way_back;

use std::path::PathBuf;
use std::time::Duration;

pub use own::{own_module, unusable};
pub use report::{Diagnosis, Row, Side, State, Verdict};

use crate::clock::{Clock as _, SystemClock};
use crate::config::Settings;

/// How to look.
#[derive(Clone, Debug)]
pub struct Options {
    /// The module's home, as the user named it: for the commands that mend things.
    pub home: PathBuf,
    /// The one peer to look at: a connection's name, or an engine's id, deployment or `host:port`.
    /// All where none is given.
    pub peer: Option<String>,
    /// How long each layer may take.
    pub timeout: Duration,
}

/// Examines what the module of `settings` can reach: its DPM, or, where it is one, itself and its
/// engines.
///
/// Connects and calls as the module does, changes nothing, and never panics at what answers.
///
/// # Errors
///
/// When no peer fits [`Options::peer`].
pub async fn examine(settings: &Settings, options: &Options) -> Result<Diagnosis, NoSuchPeer> {
    let mut own = own_module(settings, SystemClock.now());
    let module = match settings.module() {
        Ok(module) => module,
        Err(error) => {
            own.push(own::no_module(&error));
            return Ok(Diagnosis::of_own(own));
        }
    };
    let name = options.peer.as_deref();
    let connection = match name {
        Some(name) => {
            let mut connections = settings.client.connections.iter();
            connections.find(|connection| connection.name == name)
        }
        None => dpm_connection(settings),
    };
    let is_dpm = settings.own.module.as_str() == "dpm";
    let visits = match connection {
        Some(connection) if !(is_dpm && connection.name == "dpm") => {
            let peer = peer::Peer::at(connection, settings, &module, options);
            match peer {
                Ok(peer) => vec![visit::of_callee(&peer, settings, options).await],
                Err(fault) => {
                    own.push(fault);
                    return Ok(Diagnosis::of_own(own));
                }
            }
        }
        _ if is_dpm => engines::visits(settings, &module, options).await?,
        _ => return Err(NoSuchPeer(name.unwrap_or("dpm").to_owned())),
    };
    Ok(Diagnosis { own, visits })
}

/// No peer is called that.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no connection or engine `{0}` is known")]
pub struct NoSuchPeer(String);

fn dpm_connection(settings: &Settings) -> Option<&crate::config::ConnectionSettings> {
    let mut connections = settings.client.connections.iter();
    connections.find(|connection| connection.name == "dpm")
}
