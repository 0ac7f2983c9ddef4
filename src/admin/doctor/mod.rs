//! Why two modules do not talk: ten layers in their order, until the first that fails.
//!
//! Separate code examines each layer, so that the report can name the one that fails: a channel
//! reports name, TCP, TLS and HTTP/2 in one text.

mod engines;
mod identity;
mod own;
mod peer;
mod probe;
mod remedy;
mod report;
mod way_back;

pub use own::unusable;
pub use peer::Options;
pub use report::{Diagnosis, Layer, Row, Side, State, Visit};

use crate::clock::{Clock as _, SystemClock};
use crate::config::Settings;
use engines::NoSuchPeer;
use peer::Doctor;

/// Examines what the module of `settings` can reach: its DPM, or, if it is one, itself and its
/// engines.
///
/// Connects and calls as the module does, changes nothing, and never panics because of an answer.
///
/// # Errors
///
/// When no peer fits [`Options::peer`].
pub async fn examine(settings: &Settings, options: &Options) -> Result<Diagnosis, NoSuchPeer> {
    let module = match settings.module() {
        Ok(module) => module,
        Err(error) => {
            let rows = vec![own::config(settings), own::no_module(&error)];
            return Ok(Diagnosis::of_own(rows));
        }
    };
    let doctor = Doctor {
        settings,
        module,
        options,
    };
    let name = options.peer.as_deref().unwrap_or("dpm");
    let is_dpm = settings.own.module.as_str() == "dpm";
    let connection = settings.options.client.connection(name);
    let peer = match connection.filter(|_| !is_dpm || name != "dpm") {
        Some(connection) => doctor.to(connection),
        None if is_dpm => doctor.itself(),
        None => return Err(NoSuchPeer(name.to_owned())),
    };
    let visits = match peer {
        Err(row) => return Ok(Diagnosis::of_own(vec![row])),
        Ok(peer) if peer.deployment.is_none() => engines::visits(&doctor, &peer).await?,
        Ok(peer) => vec![way_back::visit(&doctor, &peer).await],
    };
    let own = vec![own::config(settings), own::key(settings, SystemClock.now())];
    Ok(Diagnosis { own, visits })
}
