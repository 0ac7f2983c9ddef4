//! Why two modules do not talk: ten layers in their order, until the first that fails.
//!
//! Each layer is examined by code of its own, so that the one that fails can be named: a channel
//! folds name, TCP, TLS and HTTP/2 into one text.

mod engines;
mod identity;
mod own;
mod peer;
mod probe;
mod remedy;
mod report;
mod way_back;

pub use own::unusable;
pub use remedy::Options;
pub use report::{Diagnosis, Layer, Row, Side, State, Visit};

use engines::NoSuchPeer;

use crate::clock::{Clock as _, SystemClock};
use crate::config::Settings;

/// Examines what the module of `settings` can reach: its DPM, or, if it is one, itself and its
/// engines.
///
/// Connects and calls as the module does, changes nothing, and never panics at what answers.
///
/// # Errors
///
/// When no peer fits [`Options::peer`].
pub async fn examine(settings: &Settings, options: &Options) -> Result<Diagnosis, NoSuchPeer> {
    let mut own = own::usable(settings, SystemClock.now());
    let module = match settings.module() {
        Ok(module) => module,
        Err(error) => {
            own.push(own::no_module(&error));
            return Ok(Diagnosis::of_own(own));
        }
    };
    let name = options.peer.as_deref().unwrap_or("dpm");
    let mut connections = settings.client.connections.iter();
    let connection = connections.find(|connection| connection.name == name);
    let is_dpm = settings.own.module.as_str() == "dpm";
    let visits = match connection {
        Some(connection) if !(is_dpm && name == "dpm") => {
            match peer::Peer::at(connection, settings, &module, options) {
                Ok(peer) => vec![way_back::visit(&peer, settings, options).await],
                Err(row) => {
                    own.push(row);
                    return Ok(Diagnosis::of_own(own));
                }
            }
        }
        _ if is_dpm => engines::visits(settings, &module, options).await?,
        _ => return Err(NoSuchPeer(name.to_owned())),
    };
    Ok(Diagnosis { own, visits })
}
