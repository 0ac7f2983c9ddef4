//! What the log of a DPM says of an engine that it refuses.

use std::time::Duration;

use super::layers::compare_clocks;
use super::peer::Peer;
use super::report::{Layer, Row, Side};
use crate::admin::rejection::refused_registration;
use crate::diagnostic::CommandLine;
use crate::telemetry::UntrustedReason;
use crate::token::Reason;

/// An engine that is refused tries again within a minute, and the log has a line each minute.
const RECENT: Duration = Duration::from_secs(120);

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
