//! What a log says of an engine that a DPM refuses.

use std::time::Duration;

use super::layers::compare_clocks;
use super::peer::Peer;
use super::report::{Help, Layer, Row, Side};
use crate::admin::rejection::{DUPLICATE, REGISTER_REFUSED, newest, refused_registration};
use crate::diagnostic::CommandLine;
use crate::telemetry::UntrustedReason;
use crate::token::Reason;

/// An engine that is refused tries again within a minute, and the log has a line each minute.
const RECENT: Duration = Duration::from_secs(120);

/// Returns why this engine is not the one that the DPM has under its id, if its log says so last.
pub(super) fn duplicate(peer: &Peer<'_>) -> Option<Row> {
    let home = &peer.doctor.settings.home.dir;
    let events = ["register", REGISTER_REFUSED, DUPLICATE];
    let last = newest(&home.join("log"), &events).ok()??;
    let why = last.text("detail").filter(|_| last.is_duplicate())?;
    let detail = format!("ENGINE_DUPLICATE: {}", UntrustedReason(why));
    let new_id = CommandLine::new("countersign dpe new-id").option("home", home);
    let help = Help::new("give a copy an id of its own, after you stop it:", new_id);
    let failed = Row::fail(Layer::WayBack, Side::Peer, detail).help(help);
    Some(failed.help(Reason::EngineDuplicate.explain()))
}

/// Fails if the log of this DPM, which is `peer`, has an engine that it refused a moment ago.
pub(super) fn refuses(peer: &Peer<'_>, detail: &str) -> Result<(), Row> {
    let doctor = peer.doctor;
    let log = doctor.settings.home.dir.join("log");
    let since = doctor.module.clock().now().checked_sub(RECENT);
    let found = since.and_then(|since| refused_registration(&log, since));
    let known = found.and_then(|(refused, count)| Some((refused.reason()?, refused, count)));
    let Some((reason, refused, count)) = known else {
        return Ok(());
    };
    let times = match count {
        1 => "once".to_owned(),
        several => format!("{several} times"),
    };
    let mut text = format!(
        "{detail}; this DPM itself refuses an engine: {reason}, {times} in the last 2 minutes"
    );
    let members = [("from", "peer"), ("key", "fingerprint"), ("why", "detail")];
    for (word, member) in members {
        if let Some(value) = refused.text(member) {
            text.extend(["; ", word, ": ", &UntrustedReason(value).to_string()]);
        }
    }
    let failed = Row::fail(Layer::WayBack, Side::Between, text).refused();
    let engine = doctor.remedy_of_engine();
    let explain = CommandLine::new("countersign explain").option("log", log);
    let row = failed.help(explain).helps(engine.check());
    Err(match reason {
        Reason::KeyRevoked => row
            .help("the engine needs a new key:")
            .helps(engine.rotate(false)),
        Reason::TokenExpired | Reason::TokenNotYetValid => compare_clocks(row, "the engine"),
        Reason::KeyUnknown => row.helps(engine.pair(false)),
        _ => row,
    })
}
